"""The fused CPU kernels against torch's own operations, one by one and in a whole training step.

Run on a quiet machine: `python benchmarks/cpu_kernels.py`. Both sides take turns in one process, so
that a machine whose speed drifts treats them alike; a ratio is the median over the turns, and its
range holds the middle 80 % of them. Times are wall-clock, in milliseconds.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bessemer.model.attention import attend, document_mask
from bessemer.model.config import ModelConfig
from bessemer.model.heads import split_heads
from bessemer.model.kernels import is_fused, linear_cross_entropy, torch_operations
from bessemer.model.layers import rms_norm, swiglu
from bessemer.model.rope import rope_table
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch

ROWS, TOKENS, HIDDEN, FEED_FORWARD, VOCABULARY = 8, 256, 256, 704, 4096
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64
DOCUMENT_TOKENS = 100
TURNS = 15
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Comparison:
    """Medians and the ratio torch / fused over all turns."""

    name: str
    torch_ms: float
    fused_ms: float
    ratio: float
    low: float
    high: float


def main() -> None:
    machine = describe_machine()
    print(machine)
    print(f"{ROWS} x {TOKENS} tokens, hidden {HIDDEN}, {DTYPE}, forward + backward\n")
    print(f"{'':24}{'torch ms':>10}{'fused ms':>10}{'ratio':>8}")
    comparisons = [compare(name, step) for name, step in operations().items()]
    whole = comparisons[-1]
    result = {
        "name": "cpu_training_step_forward_backward",
        "unit": "tokens/s",
        "ours": round(ROWS * TOKENS / whole.fused_ms * 1e3),
        "peer": round(ROWS * TOKENS / whole.torch_ms * 1e3),
        "peer_name": f"the same model on torch {torch.__version__} operations",
        "ratio": round(whole.ratio, 2),
        "ratio_low": round(whole.low, 2),
        "ratio_high": round(whole.high, 2),
        "machine": machine,
    }
    print(json.dumps(result))


def compare(name: str, step: Callable[[], None]) -> Comparison:
    """Time `step` with and without the kernels, in turns, after one call of each."""

    def timed(use_kernels: bool) -> float:
        started = time.perf_counter()
        if use_kernels:
            step()
        else:
            with torch_operations():
                step()
        return (time.perf_counter() - started) * 1e3

    for use_kernels in (True, False):
        timed(use_kernels)
    pairs = np.array([(timed(False), timed(True)) for _ in range(TURNS)])
    torch_ms, fused_ms = np.median(pairs, axis=0)
    low, ratio, high = np.quantile(pairs[:, 0] / pairs[:, 1], (0.1, 0.5, 0.9))
    print(f"{name:24}{torch_ms:10.2f}{fused_ms:10.2f}{ratio:7.2f}x   ({low:.2f} - {high:.2f})")
    return Comparison(name, float(torch_ms), float(fused_ms), float(ratio), float(low), float(high))


def operations() -> dict[str, Callable[[], None]]:
    """Each operation at the shapes of one layer, then the whole step."""
    torch.manual_seed(0)
    x = leaf(ROWS, TOKENS, HIDDEN)
    gate_up = leaf(ROWS, TOKENS, 2 * FEED_FORWARD)
    qkv = leaf(ROWS, TOKENS, (HEADS + 2 * KV_HEADS) * HEAD_DIM)
    q = leaf(ROWS, TOKENS, HEADS, HEAD_DIM)
    k, v = (leaf(ROWS, TOKENS, KV_HEADS, HEAD_DIM) for _ in "kv")
    weight = torch.ones(HIDDEN, requires_grad=True)
    norms = (torch.ones(HEAD_DIM, requires_grad=True), torch.ones(HEAD_DIM, requires_grad=True))
    head = torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (ROWS * TOKENS,))
    table = rope_table(HEAD_DIM, TOKENS, 10_000.0)
    rotation = (table[0].to(DTYPE)[None, None], table[1].to(DTYPE)[None, None])
    documents = (torch.arange(TOKENS) // DOCUMENT_TOKENS).expand(ROWS, TOKENS)
    mask = document_mask(documents)

    def cross_entropy() -> Tensor:
        hidden = x.flatten(0, 1)
        if is_fused(hidden):
            return linear_cross_entropy(hidden, head, targets)[0]
        return -F.cross_entropy(F.linear(hidden, head.to(DTYPE)).float(), targets, reduction="none")

    return {
        "RMSNorm": lambda: backward(rms_norm(x, weight, 1e-6)),
        "SwiGLU": lambda: backward(swiglu(gate_up)),
        "QK-norm and RoPE": lambda: backward(*split_heads(qkv, norms, rotation, KV_HEADS, 1e-6)),
        "attention": lambda: backward(attend(q, k, v, mask)),
        "head and cross-entropy": lambda: backward(cross_entropy()),
        "whole step": whole_step(documents),
    }


def whole_step(documents: Tensor) -> Callable[[], None]:
    """Forward and backward of a four-layer model, without the optimizer."""
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        qk_norm=True,
    )
    model = Transformer(config, DTYPE).initialize(0)
    tokens = torch.randint(0, VOCABULARY, (ROWS, TOKENS + 1))
    positions = (torch.arange(TOKENS) % DOCUMENT_TOKENS).expand(ROWS, TOKENS)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), documents, positions)

    def step() -> None:
        model.zero_grad()
        LanguageModeling().loss(model, batch).total.backward()

    return step


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape).to(DTYPE).requires_grad_()


def backward(*outputs: Tensor) -> None:
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])


def describe_machine() -> str:
    """Processor, threads in use and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    matrix_units = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return (
        f"{names[0] if names else platform.processor()} {' '.join(matrix_units)}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
