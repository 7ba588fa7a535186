"""Pipeline parallelism: processes hold consecutive layers each, and micro-batches pass through them.

The order of forward and backward passes is torch's (`torch.distributed.pipelining`):

- `1f1b`: one forward, one backward in turn (Narayanan et al. 2021, "Efficient Large-Scale Language Model
  Training on GPU Clusters", section 2.2.1). One stage a process; with n micro-batches and P processes, idle
  time is (P - 1) / n of the time of computing.
- `interleaved`: two stages a process, in two rounds, which halves that (ibid., section 2.2.2).
- `zero_bubble`: gradients of weights wait for when there is nothing else to do (Qi et al. 2023, "Zero Bubble
  Pipeline Parallelism", section 6, ZB-V). Two stages a process, laid out as a V: the first process has the
  first stage and the last, so tied embeddings need no exchange. Sharded, each of these two stages has a copy
  of its own to gather: shards of an embedding, and of its gradient, more.

Losses and gradients are summed over micro-batches, never averaged: with unequal numbers of targets a mean of
means is wrong. The caller divides once by the count of all micro-batches and processes.

Every process of a pipeline is given the same micro-batches.

Stages may be sharded (FSDP2), each with its blocks, with `reshard_after_forward=False`: a stage computes
again and again in a step, and zero-bubble looks for the parameters that it computed with. Gradients are then
reduced once a step, at its end.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleZBVZeroBubble,
)
from torch.distributed.tensor import DTensor

from bessemer.errors import BessemerError
from bessemer.evaluation.scores import Scores
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum, Objective
from bessemer.training.batches import Batch
from bessemer.training.parallel.layout import STAGES_PER_PROCESS
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.pipeline_split import balanced_split, check_split, layer_ranges
from bessemer.training.parallel.pipeline_stage import Held, Stage, Work

PipelineSchedule = Literal["1f1b", "interleaved", "zero_bubble"]
ValueT = TypeVar("ValueT")
_MOST_SCHEDULES = 4
"""Kept at a time, each with its buffers: for training and for validation, and while batches grow."""


class Pipeline:
    """This process's stages of a model, and the passes through all of them."""

    def __init__(
        self,
        model: Transformer,
        group: ProcessGroup,
        schedule: PipelineSchedule = "1f1b",
        layers: Sequence[int] | None = None,
        context: int | None = None,
        *,
        is_sharded: bool = False,
    ) -> None:
        """`model` is whole and the same on all processes of `group`, or already divided by tensors or
        experts; it is taken apart. `layers` are those of each stage; default: balanced for rows of `context`
        tokens (default: the longest of the model). `is_sharded`: stages will be sharded, each for itself.

        Raises BessemerError when there are fewer layers than stages.
        """
        self.group = group
        self.schedule: PipelineSchedule = schedule
        config = model.config
        self.num_stages = num_stages(schedule, group.size())
        if layers is None:
            layers = balanced_split(config, self.num_stages, context or config.max_position_embeddings)
        check_split(self.num_stages, config.num_hidden_layers, layers)
        self.layers = tuple(layers)
        ranges = layer_ranges(self.layers)
        # Both ends in one process share an embedding; two shards of it cannot be one parameter.
        has_two = is_sharded and self.process_of(0) == self.process_of(self.num_stages - 1)
        self.stages = [
            Stage(model, number, self.num_stages, ranges[number], has_own_embedding=has_two)
            for number in stages_of(group.rank(), group.size(), schedule)
        ]
        self.device = model.rope_cos.device
        self._has_copy = model.head is None or len(model.future) > 0
        self._schedules: dict[tuple[int, int, int], Any] = {}

    @property
    def holds_last(self) -> bool:
        """Whether this process has the last stage."""
        return self.stages[-1].is_last

    @property
    def copies(self) -> frozenset[str]:
        """Parameters held here that another process holds as well and counts: norms over the whole model
        leave them out."""
        return frozenset({"embedding"} if self._partner() is not None and self.holds_last else ())

    def held(self) -> Held:
        """What this process holds, for optimizers, norms and checkpoints. After sharding, which replaces
        parameters."""
        return Held(self.stages)

    def step(self, objective: Objective[Any], batches: Sequence[Any], factor: float = 1.0) -> LossSum:
        """Losses of all micro-batches, summed, the same on all processes; their gradients, times `factor`,
        are added to those of the parameters.

        Raises BessemerError when the schedule cannot take as many micro-batches.
        """
        check_micro_batches(self.schedule, self.group.size(), len(batches))
        work = self._give(Work(objective, batches, factor))
        copied = self._copied()
        earlier = None if copied is None else copied.grad
        if copied is not None:
            copied.grad = None
        numbers = torch.arange(len(batches))
        self.renew_copy()
        self._schedule(batches).step(number=numbers, target=numbers, return_outputs=False)
        self._check_gradients()
        self._add_copy()
        self._sum_copies(earlier)
        return self._tell(work)

    @torch.no_grad()
    def evaluate(self, objective: Objective[Any], batches: Sequence[Any]) -> LossSum:
        """Losses of any number of micro-batches, summed, the same on all processes; no gradients."""
        work = self._give(Work(objective, batches))
        self.renew_copy()
        sends: list[Any] = []
        outputs: list[tuple[Tensor, ...]] = []
        for stage in self.stages:
            inputs = outputs
            is_local = not stage.is_first and self.process_of(stage.number - 1) == self.group.rank()
            outputs = []
            for number in range(len(batches)):
                received = inputs[number] if is_local else self._receive(stage, batches)
                result = stage(*received, number=torch.tensor([number]))
                if not stage.is_last:
                    outputs.append(result if isinstance(result, tuple) else (result,))
            if not stage.is_last and self.process_of(stage.number + 1) != self.group.rank():
                peer = self.process_of(stage.number + 1)
                sends += [
                    (dist.isend(tensor, group=self.group, group_dst=peer), tensor)
                    for output in outputs
                    for tensor in output
                ]
        for work_sent, _ in sends:
            work_sent.wait()
        return self._tell(work)

    def scores(self, scores: Scores, batches: Sequence[Batch]) -> list[Tensor]:
        """What a way of scoring gives for each micro-batch, the same on all processes."""
        scoring = _Scoring(scores)
        self.evaluate(scoring, batches)
        found = self._of_last([value.cpu() for value in scoring.found])
        return [value.to(self.device) for value in found]

    def _receive(self, stage: Stage, batches: Sequence[Any]) -> tuple[Tensor, ...]:
        received = []
        for shape, dtype in stage.received_shapes(batches):
            tensor = torch.empty(shape, dtype=dtype, device=self.device)
            dist.recv(tensor, group=self.group, group_src=self.process_of(stage.number - 1))
            received.append(tensor)
        return tuple(received)

    def _give(self, work: Work) -> Work:
        for stage in self.stages:
            stage.work = work
        return work

    def _tell(self, work: Work) -> LossSum:
        """What the process with the last stage has summed, on every process."""
        total = work.total()
        value, sums = self._of_last((float(total.total), total.sums))
        return LossSum(torch.tensor(value, dtype=torch.float64), sums)

    def _of_last(self, value: ValueT) -> ValueT:
        """What the process with the last stage has, on every process."""
        everyone: list[Any] = [None] * self.group.size()
        dist.all_gather_object(everyone, value, group=self.group)
        return everyone[self.process_of(self.num_stages - 1)]

    def _schedule(self, batches: Sequence[Any]) -> Any:
        key = (len(batches), *self.stages[0].largest_shape(batches))
        if key not in self._schedules:
            if len(self._schedules) == _MOST_SCHEDULES:
                del self._schedules[next(iter(self._schedules))]
            self._schedules[key] = self._new_schedule(batches)
        return self._schedules[key]

    def _new_schedule(self, batches: Sequence[Any]) -> Any:
        stages = [
            _DescribedStage(
                stage,
                stage.number,
                self.num_stages,
                self.device,
                input_args=_examples(stage.received_shapes(batches)),
                output_args=_examples(stage.sent_shapes(batches)),
                group=self.group,
            )
            for stage in self.stages
        ]
        # The last stage has computed the loss already.
        options: dict[str, Any] = {"loss_fn": _given_loss, "scale_grads": False}
        match self.schedule:
            case "1f1b":
                return Schedule1F1B(stages[0], len(batches), **options)
            case "interleaved":
                return ScheduleInterleaved1F1B(stages, len(batches), **options)  # type: ignore[arg-type]
            case "zero_bubble":
                return ScheduleZBVZeroBubble(stages, len(batches), **options)  # type: ignore[arg-type]

    def process_of(self, stage: int) -> int:
        """The process, by rank in the pipeline, that holds a stage."""
        return process_of(stage, self.group.size(), self.schedule)

    def _partner(self) -> int | None:
        """The process that holds the other copy of the embedding, if this one has one of two."""
        first, last = self.process_of(0), self.process_of(self.num_stages - 1)
        rank = self.group.rank()
        if not self._has_copy or first == last or rank not in (first, last):
            return None
        return last if rank == first else first

    def _check_gradients(self) -> None:
        """What the weights' passes did not find in the graph would go without gradients, in silence."""
        for stage in self.stages:
            for name, parameter in stage.named_parameters():
                assert parameter.grad is not None or not parameter.requires_grad, (
                    f"{name} has no gradient: shard stages with reshard_after_forward=False"
                )

    @torch.no_grad()
    def renew_copy(self) -> None:
        """Give a second copy of the embedding in this process the values of the first, which alone is
        trained. Both are sharded alike."""
        first, last = self.stages[0], self.stages[-1]
        if last.has_copy:
            local(last.embedding).copy_(local(first.embedding))

    @torch.no_grad()
    def _add_copy(self) -> None:
        """Add the second copy's gradient to the first's."""
        first, last = self.stages[0].embedding, self.stages[-1].embedding
        if self.stages[-1].has_copy and first.grad is not None and last.grad is not None:
            local(first.grad).add_(local(last.grad))
            last.grad = None

    def _copied(self) -> nn.Parameter | None:
        """The embedding, where this process has one of two copies."""
        if self._partner() is None:
            return None
        return self.stages[0].embedding if self.stages[0].is_first else self.stages[-1].embedding

    @torch.no_grad()
    def _sum_copies(self, earlier: Tensor | None) -> None:
        """Give both copies of the embedding the sum of their gradients of this step, and add them to those of
        earlier steps, which are sums already. A sum of two does not depend on their order, so that the copies
        stay equal to the last bit."""
        partner, embedding = self._partner(), self._copied()
        if partner is None or embedding is None or not embedding.requires_grad:
            return
        if embedding.grad is None:
            embedding.grad = torch.zeros_like(embedding)
        gradient = embedding.grad.to_local() if isinstance(embedding.grad, DTensor) else embedding.grad
        sent, other = gradient.contiguous(), torch.empty_like(gradient, memory_format=torch.contiguous_format)
        peer = dist.get_global_rank(self.group, partner)
        operations = [
            dist.P2POp(dist.isend, sent, peer, self.group),
            dist.P2POp(dist.irecv, other, peer, self.group),
        ]
        for operation in dist.batch_isend_irecv(operations):
            operation.wait()
        gradient.add_(other)
        if earlier is not None:
            embedding.grad.add_(earlier)


def num_stages(schedule: PipelineSchedule, num_processes: int) -> int:
    """Stages of the whole pipeline."""
    return num_processes * STAGES_PER_PROCESS[schedule]


def process_of(stage: int, num_processes: int, schedule: PipelineSchedule) -> int:
    """The process, by rank in the pipeline, that holds a stage: round and round, or there and back."""
    place = stage % (2 * num_processes)
    if schedule == "zero_bubble":
        return min(place, 2 * num_processes - 1 - place)
    return stage % num_processes


def stages_of(process: int, num_processes: int, schedule: PipelineSchedule) -> list[int]:
    """The stages that a process holds, ascending."""
    stages = range(num_stages(schedule, num_processes))
    return [stage for stage in stages if process_of(stage, num_processes, schedule) == process]


def check_micro_batches(schedule: PipelineSchedule, num_processes: int, num_batches: int) -> None:
    """Raises BessemerError, with the nearest number that fits, when a schedule cannot take as many."""
    if not _fits(schedule, num_processes, num_batches):
        fitting = fitting_micro_batches(schedule, num_processes, num_batches)
        raise BessemerError(
            f"{num_batches} micro-batches do not suit a {schedule} pipeline of {num_processes} processes: "
            f"{fitting} would (set micro_batch_tokens)"
        )


def fitting_micro_batches(schedule: PipelineSchedule, num_processes: int, at_least: int) -> int:
    """The smallest number of micro-batches from `at_least` on that the schedule takes."""
    number = max(1, at_least)
    while not _fits(schedule, num_processes, number):
        number += 1
    return number


def fitting_within(schedule: PipelineSchedule, num_processes: int, at_least: int, at_most: int) -> int:
    """The smallest number of micro-batches from `at_least` on that the schedule takes, or if that is more
    than `at_most`, the largest below; `at_most` where none is."""
    number = fitting_micro_batches(schedule, num_processes, at_least)
    if number <= at_most:
        return number
    below = (n for n in range(at_most, 0, -1) if _fits(schedule, num_processes, n))
    return next(below, at_most)


def _fits(schedule: PipelineSchedule, num_processes: int, num_batches: int) -> bool:
    """What torch's schedules ask for."""
    if schedule == "1f1b":
        return num_batches >= num_processes
    if schedule == "interleaved":
        return num_batches > 0 and num_batches % max(1, num_batches // num_processes) == 0
    return num_batches > 0


class _Scoring:
    """A way of scoring as an objective, whose loss is nothing: keeps what the last stage gives."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self.found: list[Tensor] = []

    def count(self, batch: Batch) -> int:
        return 0

    def loss(self, model: Transformer, batch: Batch) -> LossSum:
        self.found.append(self._scores(model, batch))
        return LossSum(torch.zeros(()))


class _DescribedStage(PipelineStage):
    """A stage whose shapes are known beforehand, on every process.

    Stages vote on whether they have to find shapes by passing examples on. All of ours vote no, so the answer
    is not taken from the messages, which still open the connections: where the other processes do not exist
    (torch's fake process group, by which a layout of a thousand is tried in one) none comes.
    """

    def _warmup_backward_result(self, received_result: Tensor | None = None) -> Tensor:
        return torch.ones_like(super()._warmup_backward_result(received_result))


def _examples(shapes: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> tuple[Tensor, ...]:
    """Stand-ins without memory for what a stage receives or sends."""
    return tuple(
        torch.empty(shape, dtype=dtype, device="meta", requires_grad=True) for shape, dtype in shapes
    )


def _given_loss(loss: Tensor, number: Tensor) -> Tensor:
    return loss
