"""Tokens a second of a pretraining step against nanoGPT (and nanochat), in turns in one process.

    python benchmarks/pretrain_throughput.py --nanogpt FOLDER [--nanochat FOLDER] [--compile]

A step is forward, backward, clipping by global norm and the optimizer. Ours has a Llama shape with as
many floating-point operations a token as nanoGPT (multi-head, feed-forward width 8/3 of the hidden size,
tied head), float32 master weights and AdamW; with Muon it is timed beside. nanoGPT runs as its train.py
does: autocast to the compute dtype with the fused AdamW off on CPU, and, as further configurations, all
weights in bfloat16, and compiled (--compile; needs a C++ compiler). Where the processor has no bfloat16,
both sides compute in float32. Freed memory is kept for the next step, as our training does, for all sides.

Rows are full of one document each, except at a context of 2,048: there ours gets packed documents of
500 tokens on average with the mask that keeps them apart, while nanoGPT, which has no such mask, takes
the row for one document.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cpu_kernels import describe_machine
from peers import SHAPES, Shape, nanochat, nanogpt, nanogpt_optimizer

from bessemer.model.config import ModelConfig, flops_per_token
from bessemer.model.precision import resolve_dtype
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch
from bessemer.training.gradients import clip_gradients
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.peak import peak_of
from bessemer.training.recycled_memory import recycled_memory

Step = Callable[[], None]
MEAN_DOCUMENT_TOKENS = 500
CPU = torch.device("cpu")


def our_config(shape: Shape) -> ModelConfig:
    return ModelConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=-(-8 * shape.hidden // 3 // 8) * 8,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        qk_norm=True,
    )


def tokens_of(shape: Shape) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, shape.vocabulary, (shape.rows, shape.context + 1), generator=generator)


def documents_of(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """documents_BT and positions_BT."""
    places = torch.arange(shape.context).expand(shape.rows, -1)
    if shape.context < 2048:
        return torch.zeros(shape.rows, shape.context, dtype=torch.int32), places
    generator = torch.Generator().manual_seed(1)
    is_new = torch.rand(shape.rows, shape.context, generator=generator) < 1 / MEAN_DOCUMENT_TOKENS
    is_new[:, 0] = True
    starts = torch.where(is_new, places, 0).cummax(dim=1).values
    return is_new.cumsum(1).int(), places - starts


def our_step(shape: Shape, dtype: torch.dtype, optimizer: OptimizerConfig) -> Step:
    model = Transformer(our_config(shape), dtype).initialize(0)
    optimizers, tokens = Optimizers(model, optimizer), tokens_of(shape)
    documents, positions = documents_of(shape)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), documents, positions)
    objective = LanguageModeling()

    def step() -> None:
        optimizers.zero_grad()
        (objective.loss(model, batch).total / objective.count(batch)).backward()
        clip_gradients(model, optimizer.max_gradient_norm)
        optimizers.step()

    return step


def nanogpt_step(folder: Path, shape: Shape, dtype: torch.dtype, all_cast: bool, compiled: bool) -> Step:
    model = nanogpt(folder, shape)
    if all_cast:
        model = model.to(dtype)
    optimizer, tokens = nanogpt_optimizer(model), tokens_of(shape)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    has_autocast = dtype != torch.float32 and not all_cast
    called = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.autocast("cpu", dtype) if has_autocast else contextlib.nullcontext():
            _, loss = called(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def nanochat_step(folder: Path, shape: Shape, dtype: torch.dtype) -> Step:
    model = nanochat(folder, shape, dtype)
    optimizer, tokens = model.setup_optimizer(), tokens_of(shape)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> None:
        model(inputs, targets).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)

    return step


def seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--shapes", nargs="+", default=["10M", "30M", "10M at 2,048"], choices=SHAPES)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="time compiled peers too")
    options = parser.parse_args()
    dtype, machine = resolve_dtype("auto", CPU), describe_machine()
    peak = peak_of(CPU, dtype).flops_per_s
    print(f"{machine}, {dtype}, peak {peak / 1e9:.0f} GFLOP/s")
    with recycled_memory():
        for name in options.shapes:
            compare(SHAPES[name], dtype, peak, machine, options)


def compare(shape: Shape, dtype: torch.dtype, peak: float, machine: str, options: argparse.Namespace) -> None:
    autocast = "nanoGPT" if dtype == torch.float32 else "nanoGPT, autocast"
    steps = {
        "ours, AdamW": our_step(shape, dtype, OptimizerConfig(kind="adamw")),
        autocast: nanogpt_step(options.nanogpt, shape, dtype, False, False),
        "ours, Muon": our_step(shape, dtype, OptimizerConfig()),
    }
    if dtype != torch.float32:
        steps["nanoGPT, all weights cast"] = nanogpt_step(options.nanogpt, shape, dtype, True, False)
    if options.compile:
        steps[f"{autocast}, compiled"] = nanogpt_step(options.nanogpt, shape, dtype, False, True)
        if dtype != torch.float32:
            steps["nanoGPT, cast, compiled"] = nanogpt_step(options.nanogpt, shape, dtype, True, True)
    if options.nanochat is not None:
        steps["nanochat"] = nanochat_step(options.nanochat, shape, dtype)
    for step in steps.values():
        seconds(step)
        seconds(step)
    times = {name: [] for name in steps}
    for _ in range(options.turns):
        for name, step in steps.items():
            times[name].append(seconds(step))
    ours = np.array(times["ours, AdamW"])
    flops = flops_per_token(our_config(shape), shape.context)
    print(f"\n{shape.name}: {shape.rows} x {shape.context} tokens, {flops / 1e6:.0f} MFLOP a token")
    for name, taken in times.items():
        rate = shape.tokens / np.median(taken)
        ratio = np.median(np.array(taken) / ours)
        mfu = f", MFU {flops * rate / peak:.0%}" if name.startswith("ours") else ""
        print(f"  {name:28} {rate:8,.0f} tokens/s, ours is {ratio:.2f} times as fast{mfu}", flush=True)
    ratios = np.array(times[autocast]) / ours
    result = {
        "name": f"pretrain_throughput {shape.name}",
        "unit": "tokens/s",
        "ours": round(shape.tokens / np.median(ours)),
        "peer": round(shape.tokens / np.median(times[autocast])),
        "peer_name": autocast,
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_low": round(float(ratios.min()), 2),
        "ratio_high": round(float(ratios.max()), 2),
        "mfu": round(flops * shape.tokens / float(np.median(ours)) / peak, 3),
        "machine": machine,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
