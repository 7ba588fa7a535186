import os

import pytest
import torch
from parallel_helpers import RankFailed, run_ranks


def weighted_sum(rank: int, world_size: int, factor: float) -> float:
    value = torch.tensor([factor * (rank + 1)])
    torch.distributed.all_reduce(value)
    return value.item() + world_size


def fails_on_rank_one(rank: int, world_size: int) -> None:
    if rank == 1:
        raise ValueError("no luck")
    torch.distributed.barrier()


def dies_on_rank_one(rank: int, world_size: int) -> None:
    if rank == 1:
        os._exit(7)
    torch.distributed.barrier()


def test_every_rank_takes_part_and_its_result_comes_back():
    assert run_ranks(2, weighted_sum, 3.0) == [11.0, 11.0]


def test_a_rank_that_raises_ends_all_with_its_own_words():
    with pytest.raises(RankFailed, match=r"(?s)rank 1 raised.*no luck"):
        run_ranks(2, fails_on_rank_one)


def test_a_rank_that_dies_is_named():
    with pytest.raises(RankFailed, match="rank 1 ended with exit code 7"):
        run_ranks(2, dies_on_rank_one)
