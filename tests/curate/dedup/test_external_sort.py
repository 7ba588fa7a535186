"""Sorting with runs on disk gives what sorting in memory gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.curate.dedup import external_sort
from bessemer.curate.dedup.external_sort import ExternalSorter, bits_for, pack, unpack_numbers

LEAST_MEMORY = 1


def sorted_through(folder: Path, parts: list[np.ndarray], memory_bytes: int) -> np.ndarray:
    sorter = ExternalSorter(folder, "test", memory_bytes)
    for part in parts:
        sorter.add(part)
    return np.concatenate([np.empty(0, np.uint64), *sorter.chunks()])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_sort, "_LEAST_BLOCK", 3)


@pytest.mark.usefixtures("small_blocks")
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=30), max_size=12))
def test_many_small_runs_merge_to_the_sorted_whole(tmp_path_factory, parts: list[list[int]]):
    folder = tmp_path_factory.mktemp("runs")
    arrays = [np.array(part, np.uint64) for part in parts]
    result = sorted_through(folder, arrays, LEAST_MEMORY)
    assert result.tolist() == sorted(value for part in parts for value in part)
    assert list(folder.iterdir()) == [], "runs are deleted when they are read"


def test_a_million_values_with_little_memory_come_in_bounded_pieces(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 2**64, 1_000_000, np.uint64)
    memory = 1 << 20
    sorter = ExternalSorter(tmp_path, "test", memory)
    sorter.add(values)
    assert len(list(tmp_path.iterdir())) > 10, "it did not spill"
    pieces = list(sorter.chunks())
    assert max(piece.nbytes for piece in pieces) <= memory
    assert np.array_equal(np.concatenate(pieces), np.sort(values))


def test_equal_values_in_excess_of_the_memory_are_no_problem(tmp_path: Path):
    values = np.full(300_000, 7, np.uint64)
    assert np.array_equal(sorted_through(tmp_path, [values, values], 1 << 20), np.full(600_000, 7))


def test_packed_keys_sort_by_key_then_number_and_give_the_number_back():
    keys = np.array([2**63, 5 << 40, 2**63, 0], np.uint64)
    numbers = np.array([3, 1, 0, 2])
    assert bits_for(4) == 2
    assert bits_for(1) == 1
    assert bits_for(2**32) == 32
    packed = np.sort(pack(keys, numbers, bits_for(4)))
    assert unpack_numbers(packed, 2).tolist() == [2, 1, 0, 3]
