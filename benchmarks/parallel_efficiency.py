"""Two processes of one thread each against one process of one thread: tokens a second, and where time goes.

    python benchmarks/parallel_efficiency.py [--turns 4] [--layers 8] [--hidden 512] [--optimizer adamw]

Weak scaling: each of two processes takes as many rows a step as the one does alone, so two should make twice
the tokens in the same time; `efficiency` is what is left of that. All contestants run the training loop of
the stages (`fit`), each in processes of its own that are paused between its turns, in the order below, again
and again. Float32, random tokens, rows of one document.

    one            one process, `parallel: {}`
    apart          two such processes at once that send nothing: what memory and caches cost two cores
    DDP            parallel: {data: 2}
    FSDP           parallel: {shard: 2}
    loop by hand   forward, backward, clipping, optimizer and nothing else, in one process
    group of one   one process with the code of several

`overhead` is of `one` and `group of one` over the loop by hand, in CPU time, which other work on the machine
disturbs less. `exposed` is the share of a step in which torch's profiler saw a collective under way and the
main thread compute nothing. `bfloat16` is the norm of the error of a gradient sent in bfloat16, over the
gradient's norm.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from cpu_kernels import describe_machine
from torch.profiler import ProfilerActivity, profile

from bessemer.model.config import ModelConfig, flops_per_token, parameter_count
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.gradients import clip_gradients
from bessemer.training.loop import Plan, fit
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.joined import whole_tensor
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.ranks import Alone
from bessemer.training.parallel.together import Together
from bessemer.training.schedules import ScheduleConfig

BY_HAND, ALONE, TOGETHER = "by hand", "alone", "together"
SEVERAL = {"DDP": ParallelConfig(data=2), "FSDP": ParallelConfig(shard=2)}
ENOUGH_STEPS = 1_000_000
"""Training ends when it is told to."""


@dataclass(frozen=True)
class Work:
    """What every contestant trains."""

    config: ModelConfig
    optimizer: OptimizerConfig
    rows: int
    context: int

    @property
    def tokens(self) -> int:
        """Of a process, in a step."""
        return self.rows * self.context

    def batch(self, seed: int) -> Batch:
        shape = (self.rows, self.context + 1)
        ids_BT = torch.randint(self.config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))
        documents_BT = torch.zeros(self.rows, self.context, dtype=torch.int32)
        places_BT = torch.arange(self.context).expand(self.rows, -1)
        return Batch(ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous(), documents_BT, places_BT)


@dataclass(frozen=True)
class Times:
    """Of one step of one process."""

    wall_s: float
    cpu_s: float


class Paused:
    """A watch of training that takes one order from the parent for each step: `step`, `profile`, `gradient`
    or `stop`. Each but the last is answered when the step has ended; the first is given with the start."""

    def __init__(self, orders: Connection, model: Transformer, rank: int, first: str) -> None:
        self._orders, self._model, self._rank = orders, model, rank
        self._order = first
        self._profile: profile | None = None
        self.is_stopped = False
        self._started = time.perf_counter(), time.process_time()

    def step(self, report: object = None) -> None:
        ended = time.perf_counter(), time.process_time()
        times = Times(ended[0] - self._started[0], ended[1] - self._started[1])
        answer: Any = times
        if self._profile is not None:
            self._profile.stop()
            answer = exposed_share(self._profile, times.wall_s)
            self._profile = None
        if self._order == "gradient":
            parameters = list(self._model.parameters())
            whole = [whole_tensor(p.grad).numpy() for p in parameters if p.grad is not None]
            answer = whole if self._rank == 0 else None
        self._orders.send(answer)
        self._order = self._orders.recv()
        self.is_stopped = self._order == "stop"
        if self._order == "profile":
            self._profile = profile(activities=[ProfilerActivity.CPU])
            self._profile.start()
        self._started = time.perf_counter(), time.process_time()


def exposed_share(measured: profile, wall_s: float) -> float:
    """Share of a step in which a collective was under way and nothing was computed.

    gloo's collectives are events of its own threads. On the main thread, operators compute (`aten`, `fsdp`,
    and this project's own, whose names begin with `_`); what only waits is a wrapper around them.
    """
    events = [event for event in measured.events() or [] if event.time_range.elapsed_us() > 0]
    main = max(
        {event.thread for event in events},
        key=lambda thread: sum(event.name == "aten::mm" for event in events if event.thread == thread),
    )
    sent = [e.time_range for e in events if e.name.startswith("gloo:")]
    computed = [
        e.time_range
        for e in events
        if e.thread == main and e.name.startswith(("aten::", "fsdp::", "_")) and "::wait" not in e.name
    ]
    return (total_us([*sent, *computed]) - total_us(computed)) / (wall_s * 1e6)


def total_us(ranges: Iterable[Any]) -> float:
    """Length of the union of time ranges."""
    total, end = 0.0, float("-inf")
    for each in sorted(ranges, key=lambda each: each.start):
        total += max(0.0, each.end - max(each.start, end))
        end = max(end, each.end)
    return total


def contestant(
    kind: str, parallel: ParallelConfig, rank: int, folder: Path, work: Work, orders: Connection, first: str
) -> None:
    """Main function of a process."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    model = Transformer(work.config).initialize(0)
    batch, watch = work.batch(rank), Paused(orders, model, rank, first)
    if kind == BY_HAND:
        train_by_hand(model, work, batch, watch)
        return
    if kind == TOGETHER:
        where = f"file://{folder / 'rendezvous'}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=parallel.world_size)
    ranks = Together(build_layout(parallel, parallel.world_size)) if kind == TOGETHER else Alone()
    ranks.prepare(model, work.optimizer)
    plan = Plan(
        objective=LanguageModeling(),
        batches=lambda number: [batch],
        num_steps=ENOUGH_STEPS,
        optimizer=work.optimizer,
        schedule=ScheduleConfig(),
        checkpoint_every=ENOUGH_STEPS,
        should_stop=lambda: watch.is_stopped,
    )
    fit(model, plan, Checkpoints(folder / "checkpoints", ranks=ranks), watch, ranks)
    if kind == TOGETHER:
        dist.destroy_process_group()


def train_by_hand(model: Transformer, work: Work, batch: Batch, watch: Paused) -> None:
    """The shortest loop that trains."""
    optimizers, objective = Optimizers(model, work.optimizer), LanguageModeling()
    model.train()
    while not watch.is_stopped:
        optimizers.zero_grad()
        loss = objective.loss(model, batch)
        (loss.total / objective.count(batch)).backward()
        loss.total.item()
        clip_gradients(model, work.optimizer.max_gradient_norm)
        optimizers.step()
        watch.step()


class Contestant:
    """The processes of one contestant, from the parent's view; started, and their first step done."""

    def __init__(
        self, kind: str, parallel: ParallelConfig, work: Work, folder: Path, first: str = "step"
    ) -> None:
        # Forked from a clean server that has loaded torch once: a process then starts in a second or two.
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["torch.distributed.fsdp", "bessemer.training.loop"])
        self._orders: list[Connection] = []
        self._processes = []
        own = Path(tempfile.mkdtemp(dir=folder))
        for rank in range(parallel.world_size):
            ours, theirs = server.Pipe()
            args = (kind, parallel, rank, own, work, theirs, first)
            self._processes.append(server.Process(target=contestant, args=args, daemon=True))
            self._processes[-1].start()
            theirs.close()
            self._orders.append(ours)
        self.first = self.answers()

    def order(self, order: str) -> None:
        for each in self._orders:
            each.send(order)

    def answers(self) -> list[Any]:
        """Of every process, to the last order."""
        return [each.recv() for each in self._orders]

    def ask(self, order: str) -> list[Any]:
        self.order(order)
        return self.answers()

    def stop(self) -> None:
        self.order("stop")
        for process in self._processes:
            process.join()


def at_once(contestants: list[Contestant]) -> list[Any]:
    """A step of several that know nothing of one another."""
    for each in contestants:
        each.order("step")
    return [answer for each in contestants for answer in each.answers()]


def bfloat16_error(parallel: ParallelConfig, work: Work, folder: Path) -> float:
    """Norm of the error of the first step's gradient, over the gradient's norm."""
    gradients = []
    for dtype in ("float32", "bfloat16"):
        config = parallel.model_copy(update={"gradient_dtype": dtype})
        each = Contestant(TOGETHER, config, work, folder, first="gradient")
        gradients.append(each.first[0])
        each.stop()
    exact, sent = gradients
    error = sum(np.square(a - b).sum(dtype=np.float64) for a, b in zip(exact, sent, strict=True))
    return float(error / sum(np.square(a).sum(dtype=np.float64) for a in exact)) ** 0.5


def measure(work: Work, turns: int, folder: Path) -> tuple[dict[str, list[list[Times]]], dict[str, float]]:
    """For each contestant, of each turn, the times of its processes; and the exposed shares."""
    one, second = (Contestant(ALONE, ParallelConfig(), work, folder) for _ in range(2))
    several = {name: Contestant(TOGETHER, config, work, folder) for name, config in SEVERAL.items()}
    by_hand = Contestant(BY_HAND, ParallelConfig(), work, folder)
    group = Contestant(TOGETHER, ParallelConfig(), work, folder)
    steps: dict[str, Callable[[], list[Times]]] = {
        "one": lambda: one.ask("step"),
        "apart": lambda: at_once([one, second]),
        **{name: lambda each=each: each.ask("step") for name, each in several.items()},
        "loop by hand": lambda: by_hand.ask("step"),
        "group of one": lambda: group.ask("step"),
    }
    for step in steps.values():
        step()
    times: dict[str, list[list[Times]]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            times[name].append(step())
    exposed = {name: max(each.ask("profile")) for name, each in several.items()}
    for each in (one, second, *several.values(), by_hand, group):
        each.stop()
    return times, exposed


def ratios(
    of: list[list[Times]], to: list[list[Times]], quantity: Callable[[list[Times]], float]
) -> tuple[float, float, float]:
    """Median, smallest and largest over the turns."""
    found = [quantity(a) / quantity(b) for a, b in zip(of, to, strict=True)]
    return statistics.median(found), min(found), max(found)


def slowest_wall_s(processes: list[Times]) -> float:
    return max(each.wall_s for each in processes)


def total_cpu_s(processes: list[Times]) -> float:
    return sum(each.cpu_s for each in processes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16, help="of a process, in a step")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    options = parser.parse_args()
    config = ModelConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        max_position_embeddings=options.context,
        tie_word_embeddings=True,
        qk_norm=True,
    )
    work = Work(config, OptimizerConfig(kind=options.optimizer), options.rows, options.context)
    torch.set_num_threads(1)
    print(
        f"{describe_machine()} a process; {parameter_count(config) / 1e6:.1f} M parameters, {work.tokens:,} "
        f"tokens a process and step, {flops_per_token(config, work.context) / 1e6:.0f} MFLOP a token"
    )
    with tempfile.TemporaryDirectory(prefix="bessemer-efficiency-") as folder:
        times, exposed = measure(work, options.turns, Path(folder))
        errors = {name: bfloat16_error(parallel, work, Path(folder)) for name, parallel in SEVERAL.items()}
    report(work, times, exposed, errors)


def report(
    work: Work,
    times: dict[str, list[list[Times]]],
    exposed: dict[str, float],
    errors: dict[str, float],
) -> None:
    """The table, and the line for machines."""
    rates = {}
    for name, turns in times.items():
        seconds = statistics.median(slowest_wall_s(turn) for turn in turns)
        rates[name] = len(turns[0]) * work.tokens / seconds
        cpu_s = statistics.median(total_cpu_s(turn) for turn in turns)
        print(f"  {name:14} {rates[name]:8,.0f} tokens/s, step {seconds:7.3f} s, CPU {cpu_s:7.3f} s")
    figures: dict[str, float] = {}
    for name in ("apart", *SEVERAL):
        middle, low, high = ratios(times["one"], times[name], slowest_wall_s)
        figures[f"efficiency {name}"] = middle
        print(f"efficiency of {name:5} {middle:7.1%} ({low:.1%} to {high:.1%})")
    for name in ("one", "group of one"):
        middle, low, high = ratios(times[name], times["loop by hand"], total_cpu_s)
        figures[f"overhead {name}"] = middle - 1
        print(f"overhead of {name:12} {middle - 1:7.2%} ({low - 1:.2%} to {high - 1:.2%})")
    for name in SEVERAL:
        print(f"{name}: exposed communication {exposed[name]:.1%}, error of bfloat16 {errors[name]:.3%}")
        figures |= {f"exposed {name}": exposed[name], f"bfloat16 error {name}": errors[name]}
    middle, low, high = ratios(times["one"], times["DDP"], slowest_wall_s)
    result = {
        "name": "parallel_efficiency",
        "unit": "tokens/s",
        "ours": round(rates["DDP"]),
        "peer": round(2 * rates["one"]),
        "peer_name": "twice one process",
        "ratio": round(middle, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
        **{name: round(value, 5) for name, value in figures.items()},
        "machine": describe_machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
