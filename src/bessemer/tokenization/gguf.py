"""Tokenizers from GGUF files: byte-level BPE (`gpt2` in llama.cpp's names) as tokenizer.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bessemer.errors import BessemerError

_CONTROL, _USER_DEFINED = 3, 4
"""Token types: markers that text never spells, and whole words that are kept together."""

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_SPLITS = ("gpt-2", "smollm", "llama-bpe", "qwen2")


def write_gguf_tokenizer(metadata: Mapping[str, Any], folder: Path, source: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) from a file's metadata.

    Raises BessemerError, naming `source`, when it holds another kind of tokenizer or a damaged one.
    """
    backend = _backend(metadata, source)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    tokens = metadata["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
    }
    roles = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    for role, theirs in roles.items():
        number = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            config[role] = tokens[number]
    if isinstance(template := metadata.get("tokenizer.chat_template"), str):
        config["chat_template"] = template
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _backend(metadata: Mapping[str, Any], source: Path) -> tokenizers.Tokenizer:
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or split not in _SPLITS:
        raise BessemerError(
            f"{source}: its tokenizer is {kind!r} with the splits of {split!r}; only byte-level BPE (gpt2) "
            f"with those of {', '.join(_SPLITS)} is read: take tokenizer.json from the original folder"
        )
    tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges")
    if not _is_texts(tokens) or not _is_texts(merges):
        raise BessemerError(f"{source}: tokenizer.ggml.tokens or merges are missing: download it again")
    assert tokens is not None
    assert merges is not None
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    strange = [pair for pair in pairs if len(pair) != 2 or not all(part in vocabulary for part in pair)]
    if strange or len(vocabulary) < len(tokens):
        fault = f"the merge {' '.join(strange[0])!r}" if strange else "a token that is there twice"
        raise BessemerError(f"{source}: its tokenizer has {fault}: download it again")
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=split == "llama-bpe"))
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(_pre_tokenizers(split))
    backend.decoder = decoders.ByteLevel()
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    special = [token for token, type in zip(tokens, types, strict=False) if type == _CONTROL]
    whole = [token for token, type in zip(tokens, types, strict=False) if type == _USER_DEFINED]
    backend.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in special])
    backend.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in whole])
    return backend


def _pre_tokenizers(split: str) -> list[Any]:
    """How text is cut before merges, by the name that llama.cpp gives the rule."""
    if split in ("gpt-2", "smollm"):
        digits = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
        return [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    pattern = _LLAMA3_SPLIT if split == "llama-bpe" else _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
    return [
        pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
