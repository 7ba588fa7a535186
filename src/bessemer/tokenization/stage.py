"""The tokenizer stage: learn a byte-level BPE from the curated documents and report its economy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from bessemer.config import Bytes, Config, Count
from bessemer.errors import BessemerError
from bessemer.formats.documents import read_documents
from bessemer.formats.gguf import GGUF_SUFFIX, GgufFile
from bessemer.runner.context import StageContext
from bessemer.tokenization.gguf import write_gguf_tokenizer
from bessemer.tokenization.tokenizer import copy_tokenizer, load_tokenizer, train_bpe


class TokenizerConfig(Config):
    """How the vocabulary is learnt."""

    vocab_size: Count = Field(default=4096, ge=260)
    """Tokens in the vocabulary: 256 bytes, 4 special tokens, the rest merges."""
    sample_bytes: Bytes = 200_000_000
    """Learn from the first documents up to this many bytes of text; all are used when fewer."""
    path: str | None = None
    """A model's folder or GGUF file whose tokenizer is taken as it is, in place of learning one: for recipes
    that train an open model on (see the stage `pretrained`)."""

    @model_validator(mode="after")
    def _check(self) -> "TokenizerConfig":
        learnt = sorted(self.model_fields_set & {"vocab_size", "sample_bytes"})
        if self.path is not None and learnt:
            names = " and ".join(learnt)
            raise ValueError(f"{names}: path takes a finished tokenizer; give one or the other")
        return self


def train_tokenizer(config: TokenizerConfig, context: StageContext) -> dict[str, Any]:
    """Train, save and measure the tokenizer. Raises BessemerError on an empty corpus."""
    folder = context.input("documents").folder
    if config.path is not None:
        return _take(Path(config.path).expanduser(), folder, context)
    seen = _Seen()
    with context.progress("reading text", None, "documents") as progress:
        tokenizer = train_bpe(_sample(folder, config.sample_bytes, seen, progress), config.vocab_size)
    if seen.documents == 0:
        raise BessemerError(f"{folder} holds no documents to learn a tokenizer from")
    tokenizer.save(context.output)
    tokenizer = load_tokenizer(context.output)
    num_bytes, num_tokens = _economy(folder, tokenizer)
    bytes_per_token = num_bytes / num_tokens
    context.say(
        f"{tokenizer.vocab_size:,} tokens learnt from {seen.documents:,} documents, "
        f"{bytes_per_token:.2f} bytes a token"
    )
    return {
        "vocab_size": tokenizer.vocab_size,
        "documents": seen.documents,
        "sample_bytes": seen.num_bytes,
        "bytes_per_token": bytes_per_token,
    }


def _take(path: Path, documents: Path, context: StageContext) -> dict[str, Any]:
    """Make a model's tokenizer that of the run, and measure it."""
    if path.suffix == GGUF_SUFFIX:
        write_gguf_tokenizer(GgufFile(path).metadata, context.output, path)
    else:
        copy_tokenizer(path, context.output)
    tokenizer = load_tokenizer(context.output)
    num_bytes, num_tokens = _economy(documents, tokenizer)
    context.say(f"{path.name}: {tokenizer.vocab_size:,} tokens, {num_bytes / num_tokens:.2f} bytes a token")
    return {"vocab_size": tokenizer.vocab_size, "bytes_per_token": num_bytes / num_tokens}


class _Seen:
    documents = 0
    num_bytes = 0


def _sample(folder: Path, limit_bytes: int, seen: _Seen, progress: Any) -> Iterator[str]:
    for text in read_texts(folder):
        if seen.num_bytes >= limit_bytes:
            return
        seen.documents += 1
        seen.num_bytes += len(text.encode())
        progress.advance()
        yield text


def _economy(folder: Path, tokenizer: Any, limit_documents: int = 2000) -> tuple[int, int]:
    """Bytes and tokens of the first documents."""
    texts = [text for text, _ in zip(read_texts(folder), range(limit_documents), strict=False)]
    num_tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts))
    return sum(len(text.encode()) for text in texts), max(num_tokens, 1)


def read_texts(folder: Path) -> Iterator[str]:
    """The text of every document of an artifact, in order."""
    for batch in read_documents(folder, columns=["text"]):
        yield from batch.column("text").to_pylist()
