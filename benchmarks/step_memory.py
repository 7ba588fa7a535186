"""Peak memory of a training step at a vocabulary of 32,768 against nanoGPT, each in a process of its own.

    python benchmarks/step_memory.py --nanogpt FOLDER [--rows 16] [--context 256]

Counted is the highest resident size over three steps (forward, backward, clipping, AdamW) less that before
the model was built: weights, gradients and optimizer state included. Both sides are 6 layers of width 384
as in pretrain_throughput.py, in the processor's compute dtype.
"""

import argparse
import json
import multiprocessing
import resource
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from cpu_kernels import describe_machine
from peers import SHAPES, Shape
from pretrain_throughput import CPU, nanogpt_step, our_step

from bessemer.model.precision import resolve_dtype
from bessemer.runner.cost import resident_bytes
from bessemer.training.optimizers import OptimizerConfig

VOCABULARY = 32_768
STEPS = 3


def peak_bytes(side: str, shape: Shape, nanogpt: Path, sender: Connection) -> None:
    """Sends bytes, in a process of its own."""
    dtype = resolve_dtype("auto", CPU)
    makers: dict[str, Callable[[], Callable[[], None]]] = {
        "ours": lambda: our_step(shape, dtype, OptimizerConfig(kind="adamw")),
        "ours, Muon": lambda: our_step(shape, dtype, OptimizerConfig()),
        "nanoGPT": lambda: nanogpt_step(nanogpt, shape, dtype, False, False),
    }
    torch.randn(64, 64) @ torch.randn(64, 64)  # the libraries' own pages
    before = resident_bytes()
    step = makers[side]()
    for _ in range(STEPS):
        step()
    sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=256)
    options = parser.parse_args()
    shape = replace(SHAPES["10M"], vocabulary=VOCABULARY, rows=options.rows, context=options.context)
    spawn = multiprocessing.get_context("spawn")
    peaks = {}
    for side in ("ours", "ours, Muon", "nanoGPT"):
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(target=peak_bytes, args=(side, shape, options.nanogpt, sender))
        process.start()
        peaks[side] = int(receiver.recv())
        process.join()
        print(f"{side:12} {peaks[side] / 1e6:8,.0f} MB", flush=True)
    result = {
        "name": "step_memory",
        "unit": "bytes",
        "ours": peaks["ours"],
        "peer": peaks["nanoGPT"],
        "peer_name": "nanoGPT",
        "ratio": round(peaks["ours"] / peaks["nanoGPT"], 3),
        "machine": describe_machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
