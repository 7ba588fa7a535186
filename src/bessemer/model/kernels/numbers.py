"""Numbers inside kernels: bfloat16 as its bits in uint16, and an exponential that vectorises.

A bfloat16 is the upper half of a float32, so widening is a shift and narrowing a rounding. Kernels are
written once and compiled for both element types: on float32, `widen` and `narrow` do nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

MATHS = {"contract", "reassoc", "nsz", "arcp"}
"""fastmath flags of every kernel. `reassoc` lets LLVM keep a row's sum in vector lanes: the order of
the additions is fixed by the machine code, never by threads. NaN and infinity keep their meaning,
since the training loop looks for them.

Functions with floats that kernels call are inlined by force. Left to itself, LLVM makes two of such a
function, optimised once alone and once beside its caller, and a process that has just compiled it runs
another of the two than one that finds it in the disk cache: with `reassoc` they add in other orders."""

_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts: the first has so few bits that its product with a whole number is exact
# (Cody & Waite 1980, "Software Manual for the Elementary Functions", section 6.1).
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(0.6931471805599453 - 0.693359375)
_LOWEST = np.float32(-87.0)
_HIGHEST = np.float32(88.0)
_LEAST = np.finfo(np.float32).min
_HALF = np.float32(0.5)
_INVERSE_FACTORIALS = tuple(np.float32(1.0 / n) for n in (5040, 720, 120, 24, 6, 2))
_C7, _C6, _C5, _C4, _C3, _C2 = _INVERSE_FACTORIALS
_ONE = np.float32(1.0)

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


def primitive(function: Callable[..., Any]) -> Any:
    """numba's `intrinsic`, typed: callers leave the typing context out."""
    return intrinsic(function)


@primitive
def widen(typing_context, value):
    """An element, float32 or the bits of a bfloat16, as float32."""

    def generate(context, builder, signature, args):
        if signature.args[0] == types.float32:
            return args[0]
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return types.float32(value), generate


@primitive
def narrow(typing_context, value, like):
    """A float32 as an element of the array `like`; bfloat16 rounds to nearest, ties to even."""

    def generate(context, builder, signature, args):
        if signature.return_type == types.float32:
            return args[0]
        bits = builder.bitcast(args[0], _I32)
        # Half a unit of what is kept, less one where the kept part is already even.
        is_odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.add(bits, builder.add(is_odd, _I32(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, _I32(16)), _I16)

    return like.dtype(types.float32, like), generate


@primitive
def _maximum(typing_context, a, b):
    """The larger of two float32, NaN if either is: the one maximum whose reductions LLVM vectorises."""

    def generate(context, builder, signature, args):
        function = builder.module.declare_intrinsic(
            "llvm.maximum", [_F32], ir.FunctionType(_F32, [_F32, _F32])
        )
        return builder.call(function, args)

    return types.float32(types.float32, types.float32), generate


@primitive
def where(typing_context, flag, a, b):
    """a where the byte `flag` is not zero, else b, without a branch: loops over it vectorise."""

    def generate(context, builder, signature, args):
        return builder.select(builder.icmp_unsigned("!=", args[0], args[0].type(0)), args[1], args[2])

    return types.float32(types.uint8, types.float32, types.float32), generate


# Without `reassoc`, which would join the two parts of ln 2.
@njit(fastmath={"contract"}, forceinline=True)
def exp(x):
    """e^x in float32, relative error below 1e-6, without branches so that loops over it vectorise.

    x = n ln 2 + r with whole n and |r| <= ln(2) / 2, and the Taylor series of e^r up to r^7, whose
    remainder is below 6e-9. Below -87 the result is exp(-87) = 1.6e-38, above 88 it is exp(88); NaN
    stays NaN.
    """
    # Comparisons with NaN are false, so that it passes; min and max would drop it.
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    n = np.floor(x * _LOG2_E + _HALF)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    series = _C7
    for coefficient in (_C6, _C5, _C4, _C3, _C2, _ONE, _ONE):
        series = series * r + coefficient
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always")
def highest(values):
    """The largest element as float32; NaN where there is one."""
    result = np.float32(-np.inf)
    for i in range(len(values)):
        result = _maximum(result, widen(values[i]))
    return result


@njit(inline="always")
def highest_visible(values, visible):
    """The same over the elements where `visible` is not zero."""
    result = _LEAST
    for i in range(len(values)):
        # A hidden element counts as the least finite number: LLVM turns a maximum with -inf back into
        # the branch that `where` avoids.
        result = _maximum(result, where(visible[i], widen(values[i]), _LEAST))
    return result
