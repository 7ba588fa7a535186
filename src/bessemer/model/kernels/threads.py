"""Running kernels on the threads that torch already has.

A kernel is compiled to a C function that takes one pointer, to 64-bit words: the number of the next
chunk of work, the number of chunks, and the kernel's own arguments. Every thread of a team calls it
with the same words and takes chunks until none is left. What a chunk writes depends on its number
alone, so results are the same bytes for any number of threads and any timing.

The team is that of torch's OpenMP library, entered through `GOMP_parallel` (the entry point of a
compiled `#pragma omp parallel`, https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html).
A second pool, such as numba's own, would fight it for the cores: idle workers spin between
operations. Where torch brings no such library, Python threads do the same.
"""

import ctypes
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, njit, types
from numba.np.numpy_support import carray
from torch import Tensor

from bessemer.model.kernels.numbers import MATHS, primitive

_HEADER_WORDS = 2
# Waking a team costs 5-20 us; a thread moves this many bytes in about the same time.
_SMALL_BYTES = 128 * 1024

_ELEMENTS = {torch.bfloat16: types.uint16, torch.float32: types.float32}
_Entry = Callable[[Any], None]


class Kernel:
    """A Python function in numba's subset, compiled on its first call for an element type, and kept in
    numba's disk cache.

    The function takes one pointer, `job`, whose type is that of the elements; `arguments`, `tensor`
    and `next_chunk` read it. numba notices changes of the kernel's own file only: after editing the
    helpers in `numbers` or here, delete the `.nbi` and `.nbc` files in `__pycache__`.
    """

    def __init__(self, function: Callable[[Any], None]) -> None:
        self._function = function
        self._entries: dict[torch.dtype, _Entry] = {}
        self._code: list[Any] = []  # keeps the machine code behind the entries alive

    def compiled(self, dtype: torch.dtype) -> _Entry:
        """The C function for elements of `dtype`."""
        if dtype not in self._entries:
            signature = types.void(types.CPointer(_ELEMENTS[dtype]))
            decorate = cfunc(signature, cache=True, fastmath=MATHS, error_model="numpy")
            code: Any = decorate(self._function)
            self._code.append(code)
            self._entries[dtype] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address)
        return self._entries[dtype]

    def __call__(self, count: int, elements: Tensor, *arguments: Tensor | int | float) -> None:
        """Work through `count` chunks.

        A tensor is passed as its address and must be contiguous, an int as itself, a float as the
        bits of a float64; `elements`, of the kernel's element type, is the first of them. What they
        mean is between the kernel and its caller.
        """
        values = [_word(argument) for argument in (elements, *arguments)]
        words = (ctypes.c_int64 * (_HEADER_WORDS + len(values)))(0, count, *values)
        entry = self.compiled(elements.dtype)
        # Always torch's whole team, even for fewer chunks: OpenMP ends and restarts threads when it changes.
        num_threads = torch.get_num_threads()
        if min(num_threads, count) <= 1 or elements.nbytes <= _SMALL_BYTES:
            entry(words)
        else:
            _run_team(entry, words, num_threads)


def _word(argument: Tensor | int | float) -> int:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous(), "kernels read contiguous memory"
        return argument.data_ptr()
    if isinstance(argument, float):
        return struct.unpack("q", struct.pack("d", argument))[0]
    return argument


def _run_team(entry: _Entry, words: ctypes.Array, num_threads: int) -> None:
    parallel = _gomp_parallel()
    if parallel is not None:
        parallel(entry, words, num_threads, 0)
        return
    helpers = [_thread_pool().submit(entry, words) for _ in range(num_threads - 1)]
    entry(words)
    for helper in helpers:
        helper.result()


@cache
def _gomp_parallel() -> Callable[[_Entry, ctypes.Array, int, int], None] | None:
    """torch's own `GOMP_parallel(function, data, num_threads, flags)`, or None."""
    libraries = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for library in libraries:
        parallel = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
        if parallel is not None:
            parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            parallel.restype = None
            return parallel
    return None


@cache
def _thread_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="bessemer-kernels")


@primitive
def _as_words(typing_context, job):
    pointer_type = types.CPointer(types.int64)

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(pointer_type))

    return pointer_type(job), generate


@primitive
def _take_number(typing_context, words):
    def generate(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], ir.IntType(64)(1), "monotonic")

    return types.int64(words), generate


@njit(inline="always")
def num_chunks(job):
    """Chunks of the job."""
    return carray(_as_words(job), (_HEADER_WORDS,))[1]


@njit(inline="always")
def next_chunk(job):
    """Take the next chunk: its number, or -1 when none is left."""
    number = _take_number(_as_words(job))
    return number if number < num_chunks(job) else -1


@njit(inline="always")
def arguments(job, count):
    """The kernel's arguments as 64-bit words."""
    return carray(_as_words(job), (_HEADER_WORDS + count,))[_HEADER_WORDS:]


@njit(inline="always")
def as_float32(word):
    """An argument that was passed as a float."""
    return np.float32(np.int64(word).view(np.float64))


@njit(inline="always")
def tensor(word, element, shape):
    """An argument that was passed as a tensor. `element` is a numpy scalar type, or the job where the
    tensor holds the job's elements."""
    return carray(_as_pointer(word, element), shape)


@primitive
def _as_pointer(typing_context, word, element):
    pointer_type = types.CPointer(element.dtype)

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer_type))

    return pointer_type(types.int64, element), generate
