"""Page faults and resident memory of a process that trains."""

import ctypes
import resource
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no such settings"
)
# In a process of its own: what other tests left on the heap would serve the requests.
PROGRAM = """
from test_recycled_memory import faults_of_steps
from bessemer.runner.cost import resident_bytes
from bessemer.training.recycled_memory import recycled_memory

before = faults_of_steps()
with recycled_memory():
    faults_of_steps()
    within = faults_of_steps()
    held = resident_bytes()
print(before, within, held, resident_bytes())
"""
BLOCK_BYTES, NUM_BLOCKS, NUM_STEPS = 48 << 20, 4, 5


def faults_of_steps() -> int:
    """Page faults of five steps that each fill four large blocks and free them."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(NUM_STEPS):
        blocks = [b"x" * BLOCK_BYTES for _ in range(NUM_BLOCKS)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start


def test_freed_memory_is_used_again_without_faults_and_given_back_at_the_end():
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd="tests/training")
    before, within, held, after = map(int, found.stdout.split())
    pages = BLOCK_BYTES * NUM_BLOCKS * NUM_STEPS // resource.getpagesize()
    assert within < before / 5, "fresh pages every step before"
    assert within < pages / 100
    assert held - after > BLOCK_BYTES * NUM_BLOCKS / 2
