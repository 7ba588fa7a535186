"""Validation, samples and model folders of divided models: those of one process, and nobody has the whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_cases import packed_batch, with_torch_operations
from parallel_helpers import run_ranks
from test_parallel_loop import FOUR, LENGTH, MOVING, TWO, model_of
from torch import Tensor

from bessemer.evaluation.scores import document_log_probabilities, evaluate_alone
from bessemer.inference.engine import Engine
from bessemer.inference.sampling import SamplingParams
from bessemer.model.folder import parameter_order, save_model, save_weights
from bessemer.model.kernels import torch_operations
from bessemer.model.weights import FolderWeights, write_streamed
from bessemer.training.batches import Batch
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.together import Together

MORE_OF_TWO = {
    "ZeRO-3": ("tied", ParallelConfig(shard=2)),
    "ZeRO-1": ("untied", ParallelConfig(shard=2, zero=1)),
    "DDP": ("tied", ParallelConfig(data=2)),
    "context": ("tied", ParallelConfig(context=2)),
    "context, ulysses": ("experts", ParallelConfig(context=2, context_kind="ulysses")),
}
PROMPTS = [[1, 2, 3], [7], [9, 8, 7, 6, 5, 4]]
SAMPLING = SamplingParams(temperature=0.7, max_new_tokens=6)
SCORES = document_log_probabilities(30)


def batches() -> list[Batch]:
    """Three, so that two processes have unlike numbers; one of a length that nothing divides."""
    shapes = [(2, 24), (1, 24), (3, 23)]
    return [packed_batch(rows, tokens, seed=rows) for rows, tokens in shapes]


def double(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            local(parameter).mul_(2)


@with_torch_operations
def looked_at(rank: int, world_size: int, layouts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of each layout: scores before and after the weights have changed; tokens; and whether anyone has the
    whole."""
    found = {}
    for name, (kind, config) in layouts.items():
        ranks = Together(build_layout(config, world_size))
        trained = ranks.prepare(model_of(kind), MOVING, LENGTH)
        view = ranks.view(trained)
        before = view.evaluate(SCORES, batches())
        tokens = [] if view.generate is None else [view.generate(PROMPTS, SAMPLING, 3, {5})]
        written = folder / name
        if rank == 0:
            save_weights(
                view.config, view.weights, written, tokenizer_folder=None, generation={}, card="",
                max_shard_bytes=20_000,
            )  # fmt: skip
        elif view.whole is None:
            for key in parameter_order(view.config):
                view.weights[key]
        double(trained)
        after = view.evaluate(SCORES, batches())
        ranks.wait()
        ranks.fill(trained, FolderWeights(written), parameter_order(view.config))
        again = view.evaluate(SCORES, batches())
        found[name] = (before, after, again, tokens, view.whole is not None)
    return found


def alone(kind: str) -> tuple[list[Tensor], list[Tensor], list[list[int]]]:
    with torch_operations():
        model = model_of(kind)
        before = evaluate_alone(model)(SCORES, batches())
        answers = Engine(model.eval(), {5}, 0).generate(PROMPTS, SAMPLING, 3)
        double(model)
        after = evaluate_alone(model)(SCORES, batches())
        return before, after, [answer.token_ids for answer in answers]


def assert_close(ours: list[Tensor], theirs: list[Tensor], name: str) -> None:
    """The loss of each batch within 1e-6, that of each document within what float32 sums lose."""
    for mine, expected in zip(ours, theirs, strict=True):
        assert float(mine.sum()) == pytest.approx(float(expected.sum()), rel=1e-6), name
        torch.testing.assert_close(mine, expected, rtol=3e-6, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "layouts", [TWO | MORE_OF_TWO, pytest.param(FOUR, marks=pytest.mark.slow)], ids=["two", "four"]
)
def test_a_divided_model_is_validated_as_one_process_does(tmp_path, layouts):
    world_size = 2 if "tensor" in layouts else 4
    expected = {kind: alone(kind) for kind, _ in layouts.values()}
    found = run_ranks(world_size, looked_at, layouts, tmp_path)
    for name, (kind, _) in layouts.items():
        before, after, tokens = expected[kind]
        save_model(model_of(kind), tmp_path / "one", tokenizer_folder=None, generation={}, card="",
                   max_shard_bytes=20_000)  # fmt: skip
        assert len(list((tmp_path / "one").glob("model-*.safetensors"))) > 2
        for file in (tmp_path / "one").iterdir():
            assert (tmp_path / name / file.name).read_bytes() == file.read_bytes(), (name, file.name)
        for of_rank in found:
            ours, changed, again, drawn, has_whole = of_rank[name]
            assert has_whole == (name == "DDP")
            assert_close(ours, before, name)
            assert_close(changed, after, f"{name}: weights that have changed are seen")
            assert_close(again, before, f"{name}: read back from the folder")
            assert drawn == [tokens] * (not has_whole), name


def test_a_file_that_is_written_as_tensors_come_is_one_that_safetensors_reads(tmp_path):
    from safetensors.torch import load_file

    weights = model_of("tied").state_dict()
    write_streamed(tmp_path / "w.safetensors", {name: w.shape for name, w in weights.items()}, weights)
    read = load_file(tmp_path / "w.safetensors")
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())
