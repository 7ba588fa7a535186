"""GGUF files, as llama.cpp writes them: metadata and tensors, plain or quantised. Reading only.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little
endian. Every length in a file is checked against the bytes that are there before anything is
allocated, so a damaged or hostile file ends in a BessemerError that says where.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bessemer.errors import BessemerError
from bessemer.formats.gguf_blocks import BLOCKS, dequantize

GGUF_SUFFIX = ".gguf"
"""Of file names."""
_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter of each type of number."""
_MAX_DIMENSIONS = 4
_MEND = "download it again"


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies in the file."""

    name: str
    shape: tuple[int, ...]
    """Rows before columns, as torch has it (the file has the reverse)."""
    kind: str
    """Such as F16 or Q4_K."""
    start: int
    num_bytes: int


class GgufFile:
    """An open file. `metadata` maps keys to numbers, strings, booleans or lists of these."""

    def __init__(self, path: Path) -> None:
        """Read metadata and the table of tensors. Raises BessemerError for anything but a whole GGUF."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise BessemerError(f"{path} is missing") from None
        except ValueError:
            raise BessemerError(f"{path} is empty: {_MEND}") from None
        reader = _Reader(self._bytes, path)
        num_tensors, num_keys = _header(reader)
        self.metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = reader.string()
            self.metadata[key] = reader.value(reader.number("I"))
        self.tensors = self._table(reader, num_tensors)

    def read(self, name: str, index: int | None = None) -> np.ndarray:
        """A tensor in float32, dequantised; with `index`, that part of its first dimension alone."""
        tensor = self.tensors[name]
        shape, start, num_bytes = tensor.shape, tensor.start, tensor.num_bytes
        if index is not None:
            shape, num_bytes = shape[1:], num_bytes // shape[0]
            start += index * num_bytes
        raw = np.frombuffer(self._bytes, dtype=np.uint8, count=num_bytes, offset=start)
        return dequantize(raw, tensor.kind).reshape(shape)

    def _table(self, reader: "_Reader", num_tensors: int) -> dict[str, GgufTensor]:
        entries = [_entry(reader) for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise BessemerError(f"{self.path}: general.alignment is {alignment!r}: {_MEND}")
        data_start = -(-reader.position // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in entries:
            block_values, block_bytes = BLOCKS[kind].values, BLOCKS[kind].bytes
            num_bytes = math.prod(shape) // block_values * block_bytes
            start = data_start + offset
            if start + num_bytes > len(self._bytes):
                raise BessemerError(
                    f"{self.path} is cut short: tensor {name} needs {num_bytes:,} bytes from byte {start:,}, "
                    f"the file has {len(self._bytes):,}: {_MEND}"
                )
            if name in tensors:
                raise BessemerError(f"{self.path} holds the tensor {name} twice: {_MEND}")
            tensors[name] = GgufTensor(name, shape, kind, start, num_bytes)
        return tensors


def _header(reader: "_Reader") -> tuple[int, int]:
    """Numbers of tensors and of metadata keys."""
    path = reader.path
    if reader.take(4) != _MAGIC:
        raise BessemerError(f"{path} is not a GGUF file: it does not begin with {_MAGIC.decode()}")
    version = reader.number("I")
    if version not in (2, 3):
        raise BessemerError(
            f"{path} is GGUF version {version}: only versions 2 and 3, little endian, are read; convert it "
            "again with a present llama.cpp"
        )
    # A tensor takes at least 32 bytes of the table, a key at least 13.
    num_tensors, num_keys = reader.count(32), reader.count(13)
    return num_tensors, num_keys


def _entry(reader: "_Reader") -> tuple[str, tuple[int, ...], str, int]:
    """Name, shape, kind and offset of a tensor."""
    path, name = reader.path, reader.string()
    num_dimensions = reader.number("I")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise BessemerError(f"{path}: tensor {name} has {num_dimensions} dimensions: {_MEND}")
    shape = tuple(reader.number("Q") for _ in range(num_dimensions))[::-1]
    number, offset = reader.number("I"), reader.number("Q")
    kind = next((kind for kind, block in BLOCKS.items() if block.number == number), None)
    if kind is None:
        raise BessemerError(
            f"{path}: tensor {name} is of type {number}, which is not read; choose a file in one of "
            f"{', '.join(BLOCKS)}"
        )
    if min(shape) < 1 or shape[-1] % BLOCKS[kind].values:
        raise BessemerError(
            f"{path}: tensor {name} of shape {list(shape)} does not divide into blocks of "
            f"{BLOCKS[kind].values} ({kind}): {_MEND}"
        )
    return name, shape, kind, offset


class _Reader:
    """A place in the file that never goes beyond its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.position = data, path, 0

    def take(self, num_bytes: int) -> bytes:
        end = self.position + num_bytes
        if end > len(self.data):
            raise BessemerError(
                f"{self.path} is cut short: {num_bytes:,} bytes are to be at byte {self.position:,}, the "
                f"file has {len(self.data):,}: {_MEND}"
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(letter)))[0]

    def count(self, least_bytes: int) -> int:
        """A number of things that take at least so many bytes each, which must be there."""
        count, start = self.number("Q"), self.position
        if count * least_bytes > len(self.data) - start:
            raise BessemerError(
                f"{self.path}: byte {start - 8:,} announces {count:,} entries, more than the file can hold: "
                f"{_MEND}"
            )
        return count

    def string(self) -> str:
        start = self.position
        try:
            return self.take(self.count(1)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BessemerError(f"{self.path}: the text at byte {start:,} is not UTF-8: {_MEND}") from error

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _NUMBERS:
            raise BessemerError(f"{self.path}: byte {self.position - 4:,} names a type {kind}: {_MEND}")
        return self.number(_NUMBERS[kind])

    def _array(self) -> list[Any]:
        kind = self.number("I")
        if kind == _STRING:
            return [self.string() for _ in range(self.count(8))]
        if kind not in _NUMBERS:
            raise BessemerError(
                f"{self.path}: byte {self.position - 4:,} names a list of type {kind}: only lists of numbers "
                "and texts are read"
            )
        letter = _NUMBERS[kind]
        size = struct.calcsize(letter)
        count = self.count(size)
        return list(struct.unpack(f"<{count}{letter}", self.take(count * size)))
