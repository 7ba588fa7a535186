"""Wall time to the validation loss that nanoGPT (and nanochat) end at, on the same tokens.

    python benchmarks/time_to_loss.py TOKENS_FOLDER --nanogpt FOLDER [--nanochat FOLDER] [--tokens 2e6]

TOKENS_FOLDER is what the stage `tokens` writes: both sides get the same training and validation shards. For
every seed the peer trains on `--tokens` tokens with its own loop's recipe (nanoGPT: AdamW, cosine to a tenth,
the best of `--rates` on the first seed; nanochat: its own optimizer, warmup and warmdown); its final
validation loss is the mark. Ours then trains on ever larger shares of those tokens, each a whole run with its
own decay, until one ends at the mark or below: the time of that run counts, as does every second of the
peer's. Validation is not timed. Runs of the sides take turns. `--clock
cpu`, with OMP_NUM_THREADS=1, counts processor time instead, for machines that do other things beside.

Ours is a plain Qwen3 shape of the same depth, width and rows, without the value embeddings, smearing and
further scalars that nanochat has beside its blocks. Its recipe is that of docs/training.md for short runs
(`our_optimizer`): an untied embedding, as nanochat's and with as many operations a token as a tied one, that
starts at 1 and has a rate of 0.3; AdamW's betas 0.8 and 0.95; Muon's momentum from 0.85 on; the default
schedule. AdamW's rate for the rest is the best of `--our-rates` on the first seed and as many tokens.

The validation loss is the mean over the same rows of the same tokens for everybody. Ours keeps documents
apart by a mask, in training and validation; the peers have no mask and see the document before as well.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from cpu_kernels import describe_machine
from peers import SHAPES, Shape, nanochat, nanogpt, nanogpt_optimizer
from pretrain_throughput import CPU, our_config

from bessemer.formats.tokens import TokenSplit, read_split
from bessemer.model.initialization import EMBEDDING_STD
from bessemer.model.precision import resolve_dtype
from bessemer.model.transformer import Transformer
from bessemer.model.width import start_for_width
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import IGNORE, Batch, DocumentRows
from bessemer.training.gradients import clip_gradients
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.schedules import ScheduleConfig, learning_rate_factor

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHARES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5)
VALIDATION_ROWS = 128
Loss = Callable[[Batch], torch.Tensor]
"""Summed loss of a batch."""


class Corpus:
    """The same rows, and the same clock, for everybody."""

    def __init__(
        self, folder: Path, shape: Shape, seed: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.shape, self.clock = shape, clock
        self.train = DocumentRows(read_split(folder, "train"), shape.context, seed)
        validation: TokenSplit = read_split(folder, "validation")
        rows = DocumentRows(validation, shape.context, 0)
        num_batches = min(VALIDATION_ROWS, max(1, validation.num_tokens // shape.context)) // shape.rows
        self.validation = [rows.batch(number, shape.rows) for number in range(max(1, num_batches))]

    def batch(self, step: int) -> Batch:
        return self.train.batch(step, self.shape.rows)

    @torch.no_grad()
    def loss(self, summed: Loss) -> float:
        """Nats a target."""
        total = sum(float(summed(batch)) for batch in self.validation)
        return total / sum(int((batch.targets_BT != IGNORE).sum()) for batch in self.validation)


def peer_targets(batch: Batch) -> torch.Tensor:
    """Targets with the peers' sign for none, -1."""
    return batch.targets_BT.masked_fill(batch.targets_BT == IGNORE, -1)


def our_optimizer(learning_rate: float) -> OptimizerConfig:
    """What docs/training.md recommends for short runs."""
    return OptimizerConfig(
        learning_rate=learning_rate,
        embedding_learning_rate=0.3,
        betas=(0.8, 0.95),
        muon_momentum_warmup=300,
    )


def train_ours(
    corpus: Corpus, num_steps: int, seed: int, dtype: torch.dtype, config: OptimizerConfig
) -> tuple[float, float]:
    """Seconds and final validation loss. With a rate for the embedding, that is untied and starts at 1."""
    is_tied = config.embedding_learning_rate is None
    shape = our_config(corpus.shape).model_copy(update={"tie_word_embeddings": is_tied})
    model = Transformer(shape, dtype).initialize(seed, EMBEDDING_STD if is_tied else 1.0)
    start_for_width(model, config.base_width)
    optimizers, schedule, objective = Optimizers(model, config), ScheduleConfig(), LanguageModeling()
    started = corpus.clock()
    for step in range(num_steps):
        optimizers.set_learning_rate_factor(learning_rate_factor(schedule, step, num_steps))
        optimizers.set_momentum(step)
        optimizers.zero_grad()
        batch = corpus.batch(step)
        (objective.loss(model, batch).total / objective.count(batch)).backward()
        clip_gradients(model, config.max_gradient_norm)
        optimizers.step()
    taken = corpus.clock() - started
    return taken, corpus.loss(lambda batch: objective.loss(model, batch).total)


def train_nanogpt(
    folder: Path, corpus: Corpus, num_steps: int, seed: int, dtype: torch.dtype, rate: float
) -> tuple[float, float]:
    torch.manual_seed(seed)
    model = nanogpt(folder, corpus.shape)
    optimizer = nanogpt_optimizer(model, rate)
    warmup = max(1, num_steps // 50)
    started = corpus.clock()
    for step in range(num_steps):
        if step < warmup:
            factor = (step + 1) / warmup
        else:
            progress = (step - warmup) / max(1, num_steps - warmup)
            factor = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        batch = corpus.batch(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            _, loss = model(batch.token_ids_BT, peer_targets(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    taken = corpus.clock() - started

    def summed(batch: Batch) -> torch.Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits, _ = model(batch.token_ids_BT, peer_targets(batch))
        return F.cross_entropy(logits.float().flatten(0, 1), batch.targets_BT.flatten(), reduction="sum")

    return taken, corpus.loss(summed)


def train_nanochat(
    folder: Path, corpus: Corpus, num_steps: int, seed: int, dtype: torch.dtype
) -> tuple[float, float]:
    torch.manual_seed(seed)
    model = nanochat(folder, corpus.shape, dtype)
    optimizer = model.setup_optimizer()
    warmup, warmdown = min(40, num_steps // 10), round(0.65 * num_steps)
    first = corpus.batch(0)
    model(first.token_ids_BT, peer_targets(first)).backward()
    optimizer.step()  # compiled outside of the timed part
    torch.manual_seed(seed)
    model.init_weights()
    optimizer = model.setup_optimizer()
    started = corpus.clock()
    for step in range(num_steps):
        left = (num_steps - step) / warmdown
        factor = min((step + 1) / max(1, warmup), 1.0, left + (1 - left) * 0.05)
        momentum = 0.85 + 0.12 * min(1.0, step / 400)
        if left < 1:
            momentum = 0.97 * left + 0.90 * (1 - left)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
            if group["kind"] == "muon":
                group["momentum"] = momentum
        batch = corpus.batch(step)
        model(batch.token_ids_BT, peer_targets(batch)).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
    taken = corpus.clock() - started
    return taken, corpus.loss(
        lambda batch: model(batch.token_ids_BT, peer_targets(batch), loss_reduction="sum")
    )


def compare(
    peer: Callable[[Corpus, int], tuple[float, float]],
    corpus: Corpus,
    steps: int,
    seed: int,
    dtype: torch.dtype,
    config: OptimizerConfig,
    shares: Sequence[float],
) -> tuple[float, float, float, float]:
    """Seconds of the peer, its loss, seconds of ours, its loss."""
    peer_s, mark = peer(corpus, steps)
    for share in shares:
        ours_s, loss = train_ours(corpus, max(1, round(share * steps)), seed, dtype, config)
        print(f"    ours on {share:.0%} of the tokens: {loss:.4f} in {ours_s:.0f} s", flush=True)
        if loss <= mark:
            break
    return peer_s, mark, ours_s, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--shape", default="10M", choices=SHAPES)
    parser.add_argument("--tokens", type=float, default=2e6)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the tokens, ascending")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--our-rates", type=float, nargs="+", default=[3e-3, 6e-3, 1.2e-2])
    options = parser.parse_args()
    shape, dtype, machine = SHAPES[options.shape], resolve_dtype("auto", CPU), describe_machine()
    steps, clock = round(options.tokens / shape.tokens), CLOCKS[options.clock]
    peers: dict[str, Callable[[Corpus, int, int], tuple[float, float]]] = {}
    first = Corpus(options.folder, shape, 1, clock)
    configs = {rate: our_optimizer(rate) for rate in options.our_rates}
    losses = {r: train_ours(first, steps, 1, dtype, config)[1] for r, config in configs.items()}
    our_rate = min(losses, key=losses.__getitem__)
    print(f"ours by peak rate of AdamW: {losses}; {our_rate} is taken", flush=True)
    if options.nanogpt is not None:
        losses = {r: train_nanogpt(options.nanogpt, first, steps, 1, dtype, r)[1] for r in options.rates}
        rate = min(losses, key=losses.__getitem__)
        print(f"nanoGPT by peak rate: {losses}; {rate} is taken", flush=True)
        peers["nanoGPT"] = lambda c, n, s: train_nanogpt(options.nanogpt, c, n, s, dtype, rate)
    if options.nanochat is not None:
        peers["nanochat"] = lambda c, n, s: train_nanochat(options.nanochat, c, n, s, dtype)
    for name, train in peers.items():
        ratios = []
        for seed in range(1, options.seeds + 1):
            corpus = Corpus(options.folder, shape, seed, clock)
            found = compare(
                lambda c, n, t=train, s=seed: t(c, n, s),
                corpus,
                steps,
                seed,
                dtype,
                configs[our_rate],
                options.shares,
            )
            peer_s, mark, ours_s, loss = found
            ratios.append(ours_s / peer_s if loss <= mark else math.inf)
            print(f"seed {seed}: {name} {mark:.4f} in {peer_s:.0f} s, ours {loss:.4f} in {ours_s:.0f} s")
        result = {
            "name": f"time_to_loss {shape.name}",
            "unit": f"share of the peer's {options.clock} time",
            "peer_name": name,
            "tokens": steps * shape.tokens,
            "our_rate": our_rate,
            "ratio": round(median(ratios), 3),
            "ratio_low": round(min(ratios), 3),
            "ratio_high": round(max(ratios), 3),
            "machine": machine,
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
