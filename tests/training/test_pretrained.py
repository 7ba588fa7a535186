"""A model that others trained as the start of a recipe: the stage `pretrained`, and its tokenizer."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.folder import load_model, save_model
from bessemer.model.transformer import Transformer
from bessemer.tokenization.stage import TokenizerConfig, train_tokenizer
from bessemer.tokenization.tokenizer import train_bpe
from bessemer.training.pretrained import PretrainedConfig, pretrained
from stage_helpers import contents, said, stage_context, write_documents


def write_model(folder: Path, vocab_size: int, tokenizer_folder: Path) -> None:
    config = ModelConfig(vocab_size=vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    save_model(
        Transformer(config).initialize(0),
        folder,
        tokenizer_folder=tokenizer_folder,
        generation={"eos_token_id": 2},
        card="# A model",
        dtype=torch.bfloat16,
    )


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """As from elsewhere: with files of no concern beside it."""
    folder = tmp_path / "open-model"
    tokenizer = train_bpe(["some text to learn from, some more text to learn from"] * 5, 270)
    tokenizer.save(tmp_path / "tokenizer")
    write_model(folder, 270, tmp_path / "tokenizer")
    for name in ("pytorch_model.bin", "modeling_custom.py"):
        (folder / name).write_bytes(b"anything")
    return folder


def test_a_folder_becomes_an_artifact_with_its_weights_as_they_are(model_folder, tmp_path):
    context = stage_context(tmp_path / "stage")
    metrics = pretrained(PretrainedConfig(path=str(model_folder)), context)
    found, given = contents(context.output), contents(model_folder)
    assert found == {name: given[name] for name in given if name.endswith(("json", "safetensors", "md"))}
    assert "model.safetensors" in found
    assert metrics["parameters"] == sum(p.numel() for p in load_model(context.output).parameters())
    assert "open-model: " in said(context)


def test_its_tokenizer_is_taken_and_measured(model_folder, tmp_path):
    documents = write_documents(tmp_path / "documents", [[("a", "some text"), ("b", "more text")]])
    context = stage_context(tmp_path / "stage", documents)
    metrics = train_tokenizer(TokenizerConfig(path=str(model_folder)), context)
    given = contents(model_folder)
    assert contents(context.output) == {name: given[name] for name in given if name.startswith("tokenizer")}
    assert metrics["vocab_size"] == 270
    assert 1 < metrics["bytes_per_token"] <= 18


def test_a_tokenizer_is_learnt_or_taken_but_not_both():
    with pytest.raises(ValueError, match="vocab_size: path takes a finished tokenizer"):
        TokenizerConfig.model_validate({"path": "somewhere", "vocab_size": 300})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no folder", "neither a folder nor a .gguf file"),
        ("no file", "is no file"),
        ("only a pickle", "only safetensors weights are read"),
        ("no tokenizer", "holds no tokenizer"),
        ("another shape", "final_norm|norm.weight: shape"),
        ("too few rows", "its tokenizer has 270 tokens, its model rows for 260"),
    ],
)
def test_what_is_no_whole_model_is_refused(model_folder, tmp_path, fault, message):
    path, weights = model_folder, model_folder / "model.safetensors"
    if fault == "no folder":
        path = tmp_path / "nowhere"
    elif fault == "no file":
        path = tmp_path / "nowhere.gguf"
    elif fault == "only a pickle":
        weights.unlink()
    elif fault == "no tokenizer":
        (model_folder / "tokenizer.json").unlink()
    elif fault == "another shape":
        tensors = load_file(weights)
        save_file(tensors | {"model.norm.weight": tensors["model.norm.weight"][:-1].clone()}, weights)
    else:
        shutil.rmtree(model_folder)
        write_model(model_folder, 260, tmp_path / "tokenizer")
    with pytest.raises(BessemerError, match=message):
        pretrained(PretrainedConfig(path=str(path)), stage_context(tmp_path / "stage"))
