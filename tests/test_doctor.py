"""The doctor: each planted fault of a model folder is found by its own check, and only by it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bessemer.doctor import check_disk, check_packages, satisfies
from bessemer.doctor_model import examine_model
from bessemer.model import ModelConfig, Transformer, save_model
from bessemer.tokenization.tokenizer import train_bpe


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model folder as the training stages write it."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_bpe(iter(["steel is made of iron"]), vocab_size=264)
    tokenizer.save(folder / "tokenizer")
    config = ModelConfig(
        vocab_size=264, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=64
    )
    generation = {
        "eos_token_id": [tokenizer.end_of_turn_id, tokenizer.end_of_text_id],
        "pad_token_id": tokenizer.padding_id,
    }
    model = Transformer(config).initialize(0)
    save_model(model, folder, tokenizer_folder=folder / "tokenizer", generation=generation, card="# test\n")
    return folder


@pytest.fixture
def folder(sound_folder: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    for path in sound_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(path: Path, change: Callable[[dict], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def outcomes(folder: Path) -> dict[str, str]:
    return {check.name: check.outcome for check in examine_model(folder) if check.outcome != "ok"}


def test_a_sound_folder_passes_every_check(folder: Path) -> None:
    assert outcomes(folder) == {}
    assert len(examine_model(folder)) == 8


def test_generation_that_does_not_stop_at_the_end_of_a_turn_is_found(folder: Path) -> None:
    edit(folder / "generation_config.json", lambda d: d.update(eos_token_id=0))
    assert outcomes(folder) == {"end of turn": "fail"}


def test_padding_with_the_end_token_is_found(folder: Path) -> None:
    edit(folder / "generation_config.json", lambda d: d.update(pad_token_id=d["eos_token_id"][0]))
    assert outcomes(folder) == {"padding": "fail"}


def test_a_special_token_that_falls_apart_is_found(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda d: d["additional_special_tokens"].append("<|tool|>"))
    assert outcomes(folder) == {"special tokens": "fail"}


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{% for m in messages %}{{ m.content }}", {"end of turn": "fail", "chat template": "fail"}),
        ("{{ raise_exception('no') }}", {"end of turn": "fail", "chat template": "fail"}),
        ("{{ messages[0].content }}{{ messages[1].content }}<|im_end|>", {"chat template": "fail"}),
    ],
)
def test_a_wrong_template_is_found(folder: Path, template: str, found: dict[str, str]) -> None:
    edit(folder / "tokenizer_config.json", lambda d: d.update(chat_template=template))
    assert outcomes(folder) == found


def test_a_folder_without_a_template_is_only_warned_about(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda d: d.pop("chat_template"))
    assert outcomes(folder) == {"end of turn": "warn", "chat template": "warn"}


def test_a_weight_that_is_not_a_number_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (check,) = [check for check in examine_model(folder) if check.name == "weights"]
    assert check.outcome == "fail"
    assert "model.norm.weight" in check.detail


def test_a_tokenizer_larger_than_the_embedding_is_found(folder: Path) -> None:
    edit(folder / "config.json", lambda d: d.update(vocab_size=260))
    assert outcomes(folder) == {"vocabulary": "fail", "logits": "fail"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_a_missing_or_broken_file_is_the_only_fault_shown(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    assert outcomes(folder) == {name: "fail"}
    (folder / name).unlink()
    assert outcomes(folder) == {name: "fail"}


def test_a_truncated_weight_file_is_found(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert outcomes(folder) == {"weights": "fail", "logits": "fail"}


@pytest.mark.parametrize(
    ("version", "bounds", "meets"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("2.2", ">=2.2.0", True),
        ("2.10", ">=2.9", True),
        ("1.9", ">=1.10", False),
        ("3.0", ">=2,<3", True),
    ],
)
def test_versions_are_compared_by_release_numbers(version: str, bounds: str, meets: bool) -> None:
    assert satisfies(version, bounds) is meets


def test_missing_and_old_packages_are_named_with_the_mend() -> None:
    checks = check_packages(["surely-not-there>=1", "pydantic>=999", "rich>=1", 'x>=1; extra == "dev"'])
    found = [(check.name, check.outcome) for check in checks]
    assert found == [("surely-not-there", "fail"), ("pydantic", "fail")]
    assert checks[1].mend == "pip install 'pydantic>=999'"


def test_the_disk_of_a_folder_that_is_not_there_yet_is_examined(tmp_path: Path) -> None:
    assert str(tmp_path) in check_disk(tmp_path / "a/b").detail
