"""What fits a layout of processes, and what is said of what does not."""

import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from parallel_helpers import COLLECTIVE_TIMEOUT_S, run_ranks

from bessemer.errors import BessemerError
from bessemer.training.parallel.expert import expert_mesh
from bessemer.training.parallel.layout import (
    WAYS,
    ParallelConfig,
    build_layout,
    check_rows,
    check_shape,
)
from bessemer.training.parallel.ranks import Share


def places(rank: int, world_size: int) -> tuple[int, dict[str, int], list[int]]:
    layout = build_layout(ParallelConfig(data=2, tensor=2), world_size)
    return layout.rank, {way: layout.place(way) for way in WAYS}, layout.flat("data", "shard").mesh.tolist()


def test_neighbours_share_the_innermost_way():
    found = run_ranks(4, places)
    assert [rank for rank, _, _ in found] == [0, 1, 2, 3]
    assert [(where["data"], where["tensor"]) for _, where, _ in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [flat for _, _, flat in found] == [[0, 2], [1, 3], [0, 2], [1, 3]]


def seconds_waited(rank: int, world_size: int, done: Path) -> list[float]:
    """For process 1, which does nothing until `done` is there, in groups of each kind: along a way, along
    two, of experts."""
    config = ParallelConfig(data=2, pipeline=2, expert=2, timeout_s=1)
    layout = build_layout(config, world_size)
    receive = partial(dist.recv, group_src=1)
    calls = [
        (receive, layout.mesh["data"]),
        (dist.all_reduce, layout.flat("data", "shard")),
        (receive, expert_mesh(layout)["expert"]),
    ]
    waits = []
    while rank == 1 and not done.exists():
        time.sleep(0.01)
    for collective, mesh in calls if rank == 0 else []:
        started_s = time.monotonic()
        with pytest.raises(RuntimeError, match="Timed out"):
            collective(torch.ones(1), group=mesh.get_group())
        waits.append(time.monotonic() - started_s)
    if rank == 0:
        done.touch()
    return waits


def test_no_group_waits_longer_for_a_process_than_the_layout_says(tmp_path):
    """The groups that torch makes would wait for half an hour, whatever the default group does."""
    waits = run_ranks(4, seconds_waited, tmp_path / "done")[0]
    assert len(waits) == 3
    assert all(0.9 < wait < COLLECTIVE_TIMEOUT_S / 2 for wait in waits), waits


@pytest.mark.parametrize(
    ("config", "world_size", "message"),
    [
        (
            ParallelConfig(data=2, tensor=2),
            8,
            r"\(data 2 x tensor 2\) takes 4 processes, but 8 were started: start 4, or set data x shard to 4",
        ),
        (ParallelConfig(), 2, r"\(one process\) takes 1 processes, but 2 were started"),
        (
            ParallelConfig(tensor=3),
            4,
            r"choose sizes whose product is 4 \(pipeline x context x tensor is 3, which does not divide it\)",
        ),
    ],
)
def test_a_layout_that_does_not_fit_the_processes_is_refused_with_what_would(config, world_size, message):
    with pytest.raises(BessemerError, match=message):
        build_layout(config, world_size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data": 2, "shard": 3, "expert": 4},
            r"expert 4 does not divide data x shard x context = 6: one of 1, 2, 3, 6 would",
        ),
        ({"data": 2, "offload": "cpu"}, r"nothing is sharded: set parallel\.shard to 2 or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_the_config_with_the_mend(settings, message):
    with pytest.raises(ValueError, match=message):
        ParallelConfig(**settings)
    assert ParallelConfig(shard=2, expert=2, offload="cpu", pipeline=2, gradient_dtype="bfloat16")
    assert ParallelConfig(pipeline=2, gradient_dtype="bfloat16")


@pytest.mark.parametrize(
    ("config", "experts", "message"),
    [
        (
            ParallelConfig(tensor=3),
            0,
            r"tensor 3 does not divide 8 attention heads and 4 key/value heads: 1, 2, 4",
        ),
        (
            ParallelConfig(pipeline=7),
            0,
            r"pipeline 7 with the schedule 1f1b has 7 stages, more than the model's 6 layers: at most 6 ",
        ),
        (
            ParallelConfig(pipeline=4, pipeline_schedule="interleaved"),
            0,
            r"pipeline 4 with the schedule interleaved has 8 stages, .* 6 layers: at most 3 processes fit",
        ),
        (
            ParallelConfig(context=3, context_kind="ulysses", tensor=2),
            0,
            r"a context of 3 processes does not divide the 2 key/value heads .* gather, or context to 1, 2",
        ),
        (
            ParallelConfig(data=2, expert=2),
            0,
            r"expert 2 needs a mixture of experts, and this model is dense",
        ),
        (ParallelConfig(data=4, expert=4), 6, r"expert 4 does not divide 6 experts: 1, 2, 3, 6 would"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused_with_what_would(config, experts, message):
    with pytest.raises(BessemerError, match=message):
        check_shape(config, heads=8, kv_heads=4, layers=6, experts=experts)
    check_shape(ParallelConfig(tensor=2, pipeline=6), heads=8, kv_heads=4, layers=6, experts=0)


def test_rows_that_are_too_few_or_of_a_wrong_length_are_refused_with_what_would():
    check_rows(ParallelConfig(data=2, shard=2, context=4), 4, 64)
    with pytest.raises(
        BessemerError, match=r"3 rows, fewer than the 4 .* raise batch_tokens to at least 256, or"
    ):
        check_rows(ParallelConfig(data=2, shard=2), 3, 64)
    check_rows(ParallelConfig(data=2, pipeline=4), 8, 64)
    with pytest.raises(BessemerError, match=r"7 rows, and a 1f1b pipeline of 4 .* to at least 512, or use a"):
        check_rows(ParallelConfig(data=2, pipeline=4), 7, 64)
    with pytest.raises(
        BessemerError, match=r"sequence_length 66 is not a multiple of .* = 4: 64 or 68 would do"
    ):
        check_rows(ParallelConfig(context=2, tensor=2), 8, 66)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_shares_cover_the_rows_once_in_order_and_as_evenly_as_can_be(num_ranks):
    numbers = range(100, 107)
    parts = [Share(place, num_ranks).rows(numbers) for place in range(num_ranks)]
    assert [number for part in parts for number in part] == list(numbers)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
