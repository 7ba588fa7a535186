"""Numbers in words: what the page, the card and the summary say about stages and estimates."""

import math
from collections.abc import Mapping
from typing import Any

from bessemer.evaluation.statistics import Estimate
from bessemer.export.view import RunView, StageView
from bessemer.runner.manifest import Cost
from bessemer.runner.progress import data_size


def made(stage: StageView) -> str:
    """What a finished stage made, in a few words; empty for kinds without a short answer."""
    metrics = stage.metrics
    if not metrics:
        return ""
    match stage.kind:
        case "collect":
            return _filled("{pages:,} pages", metrics)
        case "curate":
            return _filled("{records:,} pages in, {documents:,} documents kept", metrics)
        case "tokenizer":
            return _filled("{vocab_size:,} tokens, {bytes_per_token:.2f} bytes each", metrics)
        case "tokens":
            return _filled("{train_tokens:,} to train on, {validation_tokens:,} held out", metrics)
        case "pretrain" | "midtrain":
            return _filled("{steps:,} steps, loss {loss:.3f}", metrics)
        case "synthesize":
            return _filled("{conversations:,} conversations, {questions:,} questions", metrics)
        case "sft":
            return _filled("{steps:,} steps on {conversations:,} conversations, loss {loss:.3f}", metrics)
        case "prefer":
            return _filled("{pairs:,} pairs from {answers:,} answers", metrics)
        case "dpo":
            return _filled("{steps:,} steps on {pairs:,} pairs, loss {loss:.3f}", metrics)
        case "evaluate":
            return _filled("{answer_accuracy:.1%} right, {made_up_rate:.1%} made up", metrics)
        case "export":
            return _filled("{parameters:,} parameters, {dtype}", metrics)
        case _:
            return ""


def _filled(form: str, metrics: Mapping[str, Any]) -> str:
    """The sentence, or nothing where a figure is absent, as in artifacts of an older format."""
    try:
        return form.format(**metrics)
    except (KeyError, ValueError):
        return ""


def estimate_text(estimate: Estimate | None, form: str) -> tuple[str, str]:
    """(value, interval) as text: `92.1%` and `90.3% to 93.6%`; a dash where nothing was measured."""
    if estimate is None or not math.isfinite(estimate.value):
        return "–", ""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return form.format(estimate.value), ""
    return form.format(estimate.value), f"{form.format(estimate.low)} to {form.format(estimate.high)}"


def total_cost(view: RunView) -> Cost:
    """Sum over the finished stages; memory is the largest."""
    costs = [artifact.manifest.cost for artifact in view.artifacts]
    return Cost(
        wall_s=sum(cost.wall_s for cost in costs),
        cpu_s=sum(cost.cpu_s for cost in costs),
        peak_memory_bytes=max((cost.peak_memory_bytes for cost in costs), default=0),
        flops=sum(cost.flops for cost in costs),
        energy_wh=sum(cost.energy_wh for cost in costs),
        attempts=sum(cost.attempts for cost in costs),
    )


def cost_cells(cost: Cost) -> list[str]:
    """CPU time, memory, operations and energy as text (wall time is formatted by the caller's table)."""
    return [
        f"{cost.cpu_s:,.1f} s",
        data_size(cost.peak_memory_bytes),
        operations(cost.flops) if cost.flops else "–",
        f"{cost.energy_wh:.2f} Wh" if cost.energy_wh >= 0.005 else "< 0.01 Wh",
    ]


def operations(flops: float) -> str:
    """`113 GFLOP`, `2.4 PFLOP`: floating-point operations with an SI prefix."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if flops >= factor * 0.9995:
            return f"{flops / factor:.3g} {prefix}FLOP"
    return f"{flops / 1e6:.3g} MFLOP"
