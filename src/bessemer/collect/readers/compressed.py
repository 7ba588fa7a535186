"""Files that may be compressed: gzip, bzip2, xz and Zstandard, told by their first bytes.

Decompression is bounded in memory and in what comes out: a file of a few kilobytes must not keep the
machine busy for a day.
"""

import bz2
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_CHUNK_BYTES = 1 << 16
_STEP_BYTES = 1 << 20
_XZ_MEMORY_BYTES = 256 << 20
"""xz -9 needs 65 MiB to decompress; a header can ask for gigabytes."""
_FREE_BYTES = 256 << 20
_MAX_RATIO = 256
"""Text compresses 3 to 20 times, very regular logs 100 times; beyond it, and beyond 256 MiB, it is a bomb."""


BOMB_REASON = f"more than {_MAX_RATIO} times the file's size; the rest is lost"


def max_inflated_bytes(file_bytes: int) -> int:
    """How much may come out of a compressed file of this size."""
    return max(_FREE_BYTES, _MAX_RATIO * file_bytes)


class DamagedFile(Exception):
    """A compressed file cannot be read any further. The message says why, its kind before a colon."""


class _Decoder(Protocol):
    """The common interface of the standard library's decompressors."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def open_decompressed(path: Path) -> BinaryIO:
    """The file's content, decompressed where its first bytes say so. Reading raises DamagedFile.

    A text may begin with `BZh` by chance: without a name that says so, too, its first bytes must decompress.
    """
    file = path.open("rb")
    magic = file.read(6)
    file.seek(0)
    for start, name, chunks in _KINDS:
        if magic.startswith(start):
            reader = _ChunkReader(file, name, chunks(file))
            if path.name.lower().endswith(COMPRESSION_SUFFIXES) or reader.can_begin():
                return io.BufferedReader(reader, _STEP_BYTES)
            reader.close()
            return path.open("rb")
    return file


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """The whole content, None when it is longer than `max_bytes`. Raises DamagedFile and OSError."""
    with open_decompressed(path) as file:
        content = file.read(max_bytes + 1)
    return content if len(content) <= max_bytes else None


class _ChunkReader(io.RawIOBase):
    """A file over decompressed chunks, which turns their errors into DamagedFile."""

    def __init__(self, file: BinaryIO, kind: str, chunks: Iterator[bytes]) -> None:
        self._file = file
        self._kind = kind
        self._chunks = chunks
        self._rest = b""
        self._num_bytes = 0
        self._file_bytes = os.fstat(file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        if not self._rest:
            self._rest = self._next_chunk()
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)

    def can_begin(self) -> bool:
        """Whether the first bytes decompress."""
        try:
            self._rest = self._next_chunk()
        except DamagedFile:
            return False
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def _next_chunk(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
        except (EOFError, OSError, zlib.error, lzma.LZMAError, MemoryError) as error:
            reason = " ".join(str(error).split())
            raise DamagedFile(f"damaged {self._kind} file: the rest is lost ({reason})") from error
        self._num_bytes += len(chunk)
        if self._num_bytes > max_inflated_bytes(self._file_bytes):
            raise DamagedFile(f"decompression bomb: {BOMB_REASON}")
        return chunk


class _Gzip:
    """zlib's decompressor in the shape of the others."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)


def _streams(start: Callable[[], _Decoder]) -> Callable[[BinaryIO], Iterator[bytes]]:
    """Chunks of a file that holds one compressed stream after another."""

    def chunks(file: BinaryIO) -> Iterator[bytes]:
        data = b""
        while data := data or file.read(_CHUNK_BYTES).lstrip(b"\0"):  # padding is allowed between streams
            decoder = start()
            while not decoder.eof:
                if decoder.needs_input and not data and not (data := file.read(_CHUNK_BYTES)):
                    raise EOFError("it ends too early")
                if chunk := decoder.decompress(data, _STEP_BYTES):
                    yield chunk
                data = b""
            data = decoder.unused_data.lstrip(b"\0")

    return chunks


def _zstandard(file: BinaryIO) -> Iterator[bytes]:
    # Arrow's reader takes frame after frame and refuses windows above 128 MiB.
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
        while chunk := stream.read(_STEP_BYTES):
            yield chunk


_KINDS: tuple[tuple[bytes, str, Callable[[BinaryIO], Iterator[bytes]]], ...] = (
    (b"\x1f\x8b", "gzip", _streams(_Gzip)),
    (b"BZh", "bzip2", _streams(bz2.BZ2Decompressor)),
    (b"\xfd7zXZ\x00", "xz", _streams(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES))),
    (b"\x28\xb5\x2f\xfd", "Zstandard", _zstandard),
)
