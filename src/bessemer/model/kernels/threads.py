"""Running kernels on the threads that torch already has.

A kernel is compiled to a C function that takes one pointer to 64-bit words: the number of the next
chunk of work, the number of chunks, the bytes of an element, and the kernel's own arguments. Every
thread of a team calls it with the same words and takes chunks until none is left. What a chunk writes depends on its number
alone, so results are the same bytes for any number of threads and any timing.

The team is that of torch's OpenMP library, entered through `GOMP_parallel` (the entry point of
compiled `#pragma omp parallel`, https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html).
A second pool, such as numba's own, would fight it for the cores: its workers spin between
operations. Where torch brings no GNU-compatible OpenMP, a pool of Python threads does the same.
"""

import ctypes
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path

import torch
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic
from torch import Tensor

NUM_CHUNKS, ELEMENT_BYTES, FIRST = 1, 2, 3
"""Where a kernel finds things in its words."""
_SIGNATURE = types.void(types.CPointer(types.int64))
# Waking a team costs 5-20 us; a thread moves this many bytes in about the same time.
_SMALL_BYTES = 128 * 1024


@intrinsic
def next_chunk(typing_context, words):
    """Take the next chunk number of the job, atomically."""

    def generate(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], ir.IntType(64)(1), "monotonic")

    return types.int64(types.CPointer(types.int64)), generate


@intrinsic
def pointer(typing_context, address, element):
    """A 64-bit word as a typed pointer, for `numba.carray`."""
    pointer_type = types.CPointer(element.dtype)

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer_type))

    return pointer_type(types.int64, element), generate


class Kernel:
    """A Python function in numba's subset, compiled on its first call and kept in numba's disk cache."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    @cached_property
    def _entry(self) -> ctypes._CFuncPtr:
        return self._compiled.ctypes

    @cached_property
    def _compiled(self):  # noqa: ANN202 - numba does not export the type
        return cfunc(_SIGNATURE, nopython=True, cache=True, error_model="numpy")(self._function)

    def __call__(self, num_chunks: int, *arguments: Tensor | int | float) -> None:
        """Work through `num_chunks` chunks; the first argument is a tensor of the elements.

        A tensor is passed as its address and must be contiguous, an int as itself, a float as the
        bits of a float64. What the words from `FIRST` on mean is between the kernel and its caller.
        """
        first = arguments[0]
        assert isinstance(first, Tensor)
        header = (0, num_chunks, first.itemsize)
        words = (ctypes.c_int64 * (FIRST + len(arguments)))(*header, *map(_word, arguments))
        num_threads = min(torch.get_num_threads(), num_chunks)
        if num_threads <= 1 or first.nbytes <= _SMALL_BYTES:
            self._entry(words)
        else:
            _run_team(self._entry, words, num_threads)


def _word(argument: Tensor | int | float) -> int:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous(), "kernels read contiguous memory"
        return argument.data_ptr()
    if isinstance(argument, float):
        return struct.unpack("q", struct.pack("d", argument))[0]
    return argument


def _run_team(entry: ctypes._CFuncPtr, words: ctypes.Array, num_threads: int) -> None:
    parallel = _gomp_parallel()
    if parallel is not None:
        parallel(entry, words, num_threads, 0)
        return
    helpers = [_thread_pool().submit(entry, words) for _ in range(num_threads - 1)]
    entry(words)
    for helper in helpers:
        helper.result()


@cache
def _gomp_parallel():  # noqa: ANN202
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
