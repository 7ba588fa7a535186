"""Token shards: memory-mapped little-endian integers with an index of the documents inside.

A split `train` lies in `train-00000.bin`, `train-00001.bin`, … (uint16 when the vocabulary fits,
else uint32), each with `train-00000.index.parquet` (document_id, offset, num_tokens, num_bytes;
offsets in tokens from the shard's start). `tokens.json` records dtype, vocabulary, tokenizer
digest and counts. `numpy.memmap(path, dtype="<u2")` opens a shard.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bessemer.errors import BessemerError
from bessemer.runner.files import write_atomically

HEADER_NAME = "tokens.json"
INDEX_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("offset", pa.int64()),
        ("num_tokens", pa.int32()),
        ("num_bytes", pa.int64()),
    ]
)


def dtype_for(vocab_size: int) -> np.dtype:
    """The smallest little-endian unsigned type that holds every id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def write_shard(
    folder: Path,
    split: str,
    number: int,
    documents: list[tuple[str, list[int], int]],
    dtype: np.dtype,
) -> None:
    """Write one shard from (document id, token ids, size of the text in bytes) triples, atomically."""
    lengths = np.array([len(ids) for _, ids, _ in documents], dtype=np.int64)
    tokens = np.concatenate([np.asarray(ids, dtype=dtype) for _, ids, _ in documents] or [np.zeros(0, dtype)])
    index = pa.table(
        {
            "document_id": [id for id, _, _ in documents],
            "offset": np.cumsum(lengths) - lengths,
            "num_tokens": lengths.astype(np.int32),
            "num_bytes": [num_bytes for _, _, num_bytes in documents],
        },
        schema=INDEX_SCHEMA,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(index, sink, compression="zstd")
    write_atomically(folder / f"{split}-{number:05}.index.parquet", sink.getvalue().to_pybytes())
    write_atomically(folder / f"{split}-{number:05}.bin", tokens.tobytes())


def write_header(folder: Path, *, vocab_size: int, tokenizer_digest: str, counts: dict[str, int]) -> None:
    """Write tokens.json; `counts` maps a split to its number of tokens."""
    header = {
        "dtype": dtype_for(vocab_size).str,
        "vocab_size": vocab_size,
        "tokenizer_digest": tokenizer_digest,
        "tokens": counts,
    }
    write_atomically(folder / HEADER_NAME, json.dumps(header, indent=2).encode() + b"\n")


@dataclass(frozen=True)
class TokenSplit:
    """All shards of one split: the documents of every shard in order."""

    shards: list[NDArray]
    """Memory maps of token ids."""
    shard_of: NDArray[np.int32]
    """Per document: which shard."""
    offsets: NDArray[np.int64]
    """Per document: first token inside its shard."""
    lengths: NDArray[np.int64]
    """Per document: number of tokens."""
    num_bytes: NDArray[np.int64]
    """Per document: size of its text in UTF-8 bytes."""
    document_ids: list[str]
    vocab_size: int

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    def document(self, number: int) -> NDArray:
        """Token ids of one document."""
        start = self.offsets[number]
        return self.shards[self.shard_of[number]][start : start + self.lengths[number]]


def tokenizer_digest(folder: Path) -> str:
    """Digest of the tokenizer artifact that the shards were encoded with. Raises BessemerError."""
    return _read_header(folder)["tokenizer_digest"]


def _read_header(folder: Path) -> dict[str, Any]:
    header_path = folder / HEADER_NAME
    if not header_path.is_file():
        raise BessemerError(f"{header_path} is missing: {folder} holds no token shards")
    return json.loads(header_path.read_text())


def read_split(folder: Path, split: str) -> TokenSplit:
    """Map the shards of `split`. Raises BessemerError when there are none or the header is missing."""
    header = _read_header(folder)
    dtype = np.dtype(header["dtype"])
    paths = sorted(folder.glob(f"{split}-*.bin"))
    if not paths:
        raise BessemerError(f"{folder} holds no shards of the split {split!r}")
    indexes = [pq.read_table(path.with_suffix(".index.parquet")) for path in paths]
    index = pa.concat_tables(indexes)
    return TokenSplit(
        shards=[
            np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
            for path in paths
        ],
        shard_of=np.repeat(np.arange(len(paths), dtype=np.int32), [len(i) for i in indexes]),
        offsets=index.column("offset").to_numpy(),
        lengths=index.column("num_tokens").to_numpy().astype(np.int64),
        num_bytes=index.column("num_bytes").to_numpy(),
        document_ids=index.column("document_id").to_pylist(),
        vocab_size=header["vocab_size"],
    )
