"""`bessemer export`: a whole, checked copy, and nothing destroyed."""

import shutil
from pathlib import Path

import pytest

from bessemer.errors import BessemerError, ConfigError
from bessemer.export.command import export_model
from bessemer.model import check_reload, load_model


@pytest.fixture
def model(small_run: Path) -> Path:
    return small_run / "export"


def test_a_copy_holds_the_model_and_nothing_of_the_run(model: Path, tmp_path: Path) -> None:
    said = export_model(model, str(tmp_path / "new/copy"))
    copy = tmp_path / "new/copy"
    names = {path.name for path in copy.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert all((copy / name).read_bytes() == (model / name).read_bytes() for name in names)
    assert check_reload(load_model(model), copy, seed=0) == 0.0
    assert str(copy) in said
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_an_older_copy_is_replaced_whole(model: Path, small_run: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    export_model(small_run / "base", str(target))
    (target / "model.safetensors.index.json").write_text("{}")
    export_model(model, str(target))
    assert not (target / "model.safetensors.index.json").exists()
    assert (target / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("holds", ["notes.txt", "folder/file", "config.json+thesis.tex", "README.md"])
def test_a_folder_with_anything_but_a_model_is_left_alone(model: Path, tmp_path: Path, holds: str) -> None:
    target = tmp_path / "mine"
    for name in holds.split("+"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("precious")
    before = sorted(path.relative_to(target) for path in target.rglob("*"))
    with pytest.raises(BessemerError, match="left alone"):
        export_model(model, str(target))
    assert sorted(path.relative_to(target) for path in target.rglob("*")) == before


def test_an_empty_folder_is_filled_and_a_file_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_model(model, str(tmp_path / "empty"))
    assert (tmp_path / "empty/config.json").is_file()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BessemerError, match="is a file"):
        export_model(model, str(tmp_path / "file"))


@pytest.mark.parametrize("to", ["", "inside", "..", "../.."])
def test_source_and_target_do_not_lie_within_each_other(small_run: Path, tmp_path: Path, to: str) -> None:
    model = Path(shutil.copytree(small_run / "export", tmp_path / "runs/export"))
    with pytest.raises(BessemerError, match="within each other"):
        export_model(model, str(model / to))
    assert (model / "model.safetensors").is_file()


@pytest.mark.parametrize("format", ["gguf", "GGUF", "onnx"])
def test_a_format_that_is_not_there_yet_says_what_is(model: Path, format: str) -> None:
    with pytest.raises(ConfigError, match=r"only Hugging Face folders.*\./"):
        export_model(model, format)


def test_a_model_that_does_not_load_is_not_copied(model: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(BessemerError, match="not a whole safetensors file"):
        export_model(broken, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
