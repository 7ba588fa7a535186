"""The tokens stage: documents become memory-mapped token shards, with a held-out split by document."""

from typing import Any

import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from bessemer.config import Config
from bessemer.errors import BessemerError
from bessemer.formats.documents import DOCUMENTS_STEM
from bessemer.formats.parquet_shards import shard_paths
from bessemer.formats.tokens import dtype_for, read_split, write_header, write_shard
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import Tokenizer, load_tokenizer


class TokensConfig(Config):
    """How documents are encoded and split."""

    validation_share: float = Field(default=0.02, gt=0, lt=0.5)
    """Share of documents held out for validation; chosen by a hash of the document's id."""


def encode_tokens(config: TokensConfig, context: StageContext) -> dict[str, Any]:
    """Encode every document, ended by `<|endoftext|>`, into shards of both splits.

    One pair of token shards per document shard; a shard already written by a killed attempt is kept.
    """
    documents = context.input("documents")
    tokenizer_artifact = context.input("tokenizer")
    tokenizer = load_tokenizer(tokenizer_artifact.folder)
    dtype = dtype_for(tokenizer.vocab_size)
    paths = shard_paths(documents.folder, DOCUMENTS_STEM)
    with context.progress("encoding", len(paths), "shards") as progress:
        for number, path in enumerate(paths):
            # The validation shard is written last: where it stands, the pair is complete.
            if not (context.output / f"validation-{number:05}.bin").exists():
                splits = _encode_shard(path, tokenizer, config.validation_share)
                for split in ("train", "validation"):
                    write_shard(context.output, split, number, splits[split], dtype)
            progress.advance()
    digest = tokenizer_artifact.manifest.digest
    write_header(context.output, vocab_size=tokenizer.vocab_size, tokenizer_digest=digest, counts={})
    splits = {split: read_split(context.output, split) for split in ("train", "validation")}
    counts = {split: data.num_tokens for split, data in splits.items()}
    write_header(context.output, vocab_size=tokenizer.vocab_size, tokenizer_digest=digest, counts=counts)
    empty = [split for split, count in counts.items() if count == 0]
    if empty:
        total = sum(len(data.lengths) for data in splits.values())
        raise BessemerError(
            f"no document fell into {' and '.join(empty)} out of {total}: "
            "collect more documents or raise tokens.validation_share"
        )
    num_bytes = sum(int(data.num_bytes.sum()) for data in splits.values())
    context.say(f"{counts['train']:,} training tokens, {counts['validation']:,} held out")
    return {
        "train_tokens": counts["train"],
        "validation_tokens": counts["validation"],
        "train_documents": len(splits["train"].lengths),
        "validation_documents": len(splits["validation"].lengths),
        "bytes_per_token": num_bytes / sum(counts.values()),
    }


def is_validation(document_id: str, share: float) -> bool:
    """Whether a document is held out: a pure function of its id, so that splits never drift."""
    return xxhash.xxh3_64_intdigest(document_id.encode(), seed=0x5EED) < share * 2**64


def _encode_shard(
    path: Any, tokenizer: Tokenizer, share: float
) -> dict[str, list[tuple[str, list[int], int]]]:
    table = pq.read_table(path, columns=["id", "text"])
    ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
    splits: dict[str, list[tuple[str, list[int], int]]] = {"train": [], "validation": []}
    for id, text, token_ids in zip(ids, texts, tokenizer.encode_batch(texts), strict=True):
        split = "validation" if is_validation(id, share) else "train"
        splits[split].append((id, [*token_ids, tokenizer.end_of_text_id], len(text.encode())))
    return splits
