"""The processes of a layout: what they send one another in a step, besides what the model itself needs.

A step takes two small gathers (counts; losses) and one for the norm, whatever the model's size.
"""

import socket
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from bessemer.errors import BessemerError
from bessemer.evaluation.scores import Scores
from bessemer.inference.sampling import SamplingParams
from bessemer.model.mixture import Mixture
from bessemer.model.transformer import Transformer
from bessemer.model.weights import Weights
from bessemer.objectives.base import Objective
from bessemer.training.batches import Batch
from bessemer.training.gradients import GROUPS, group_of
from bessemer.training.optimizers import JoinedMatrix, OptimizerConfig
from bessemer.training.parallel.context import padded_rows
from bessemer.training.parallel.data import reshard
from bessemer.training.parallel.divided import Divided
from bessemer.training.parallel.generation import generate, whole_rows
from bessemer.training.parallel.joined import JoinedWeights
from bessemer.training.parallel.layout import Layout, check_model
from bessemer.training.parallel.materialize import fill, materialize
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.pipeline import fitting_within
from bessemer.training.parallel.ranks import Share, View
from bessemer.training.parallel.shapes import parameter_shapes
from bessemer.training.parallel.trained import Accumulating, Pipelining, Trained
from bessemer.training.quantized import Quantized

ValueT = TypeVar("ValueT")


class Together:
    """The processes of a layout."""

    def __init__(self, layout: Layout) -> None:
        """Collective: makes the groups that are needed."""
        self._layout = layout
        self._tokens = layout.flat("data", "shard", "context").get_group()
        self._routed = layout.flat("data", "shard", "context", "tensor").get_group()
        # A thread of its own sends through it, at any time, so it must be of its own, too.
        timeout = timedelta(seconds=layout.config.timeout_s)
        writers = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(writers, dist.ProcessGroup)  # of all processes, so of this one
        self.writers: dist.ProcessGroup | None = writers
        self._trained: Trained | None = None
        self._divided: Divided | None = None
        self.is_main = layout.rank == 0
        shard = layout.config.shard
        place = layout.place("data") * shard + layout.place("shard")
        self.share = Share(place, layout.config.data * shard, self._fit)

    def _fit(self, num_parts: int, num_rows: int) -> int:
        """A pipeline is idle with fewer micro-batches than processes, and some schedules take only some
        numbers of them."""
        config = self._layout.config
        if config.pipeline == 1:
            return num_parts
        return fitting_within(
            config.pipeline_schedule, config.pipeline, max(num_parts, config.pipeline), num_rows
        )

    def prepare(
        self,
        model: Transformer,
        optimizer: OptimizerConfig,
        row_tokens: int | None = None,
        weights: Weights | None = None,
    ) -> nn.Module:
        """Raises BessemerError for what does not divide, and for settings that do not go together."""
        config, shape = self._layout.config, model.config
        check_model(config, shape)
        self._divided = Divided(self._layout, shape)
        self._divided.divide(model)
        fill = partial(self._fill, weights, model.device)
        if config.pipeline > 1:
            self._trained = Pipelining(model, self._layout, self._divided, fill, row_tokens)
        else:
            self._trained = Accumulating(model, self._layout, self._divided, fill)
        return self._trained.module

    def _fill(self, weights: Weights | None, device: torch.device, modules: Sequence[nn.Module]) -> None:
        if weights is None:
            return
        assert self._divided is not None
        shards_device = torch.device("cpu") if self._layout.config.offload == "cpu" else device
        materialize(modules, weights, device, self._divided.segments, shards_device)

    @property
    def _prepared(self) -> tuple[Trained, Divided]:
        assert self._trained is not None, "prepare comes first"
        assert self._divided is not None, "prepare comes first"
        return self._trained, self._divided

    @property
    def divided(self) -> Divided:
        """What divides the model's tensors."""
        return self._prepared[1]

    def joined(self, model: nn.Module) -> Mapping[Tensor, JoinedMatrix]:
        divided = self.divided
        shapes = parameter_shapes(model.config)  # type: ignore[reportArgumentType]
        return {
            parameter: JoinedMatrix(name, shapes[name], divided)
            for name, parameter in model.named_parameters()
            if divided.is_joined_for_updates(name)
        }

    def pieces(self, name: str, value: Tensor | Quantized) -> Tensor:
        return self.divided.pieces(name, value)

    def own(self, batch: Any) -> Any:
        if self._layout.config.context == 1:
            return batch
        assert isinstance(batch, Batch), "the config of a stage with other batches refuses parallel.context"
        return self.divided.part_of(batch)

    def counts(self, count: int, num_parts: int) -> tuple[int, int]:
        gathered = _gathered([float(count), float(num_parts)], self._tokens, self._device)
        return int(gathered[:, 0].sum()), int(gathered[:, 1].max())

    def gradients(
        self, objective: Objective[Any], batches: Sequence[Any], num_parts: int, factor: float
    ) -> tuple[float, dict[str, float]]:
        return self._prepared[0].gradients(objective, batches, num_parts, factor)

    def sums(self, values: Sequence[float]) -> list[float]:
        return _gathered(values, self._tokens, self._device).sum(0).tolist()

    @torch.no_grad()
    def sum_loads(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, Mixture) and module.load_X is not None:
                dist.all_reduce(module.load_X, group=self._routed)

    @torch.no_grad()
    def clip(self, model: nn.Module, max_norm: float) -> tuple[float, dict[str, float]]:
        copies = self._prepared[0].copies
        named = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
        gradients = [local(p.grad) for _, p in named if p.grad is not None]
        squares: dict[str, float] = dict.fromkeys(GROUPS, 0.0)
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients)).tolist()  # type: ignore[reportPrivateImportUsage]
            for (name, parameter), norm in zip(named, norms, strict=True):
                if name not in copies:
                    squares[group_of(name)] += norm * norm / self._num_copies(name, parameter)
        everyone = _gathered(list(squares.values()), dist.group.WORLD, self._device).sum(0).tolist()
        total = sum(everyone) ** 0.5
        # As torch's clip_grads_with_norm_ does; a norm that is not finite is for the guard to see.
        factor = max_norm / (total + 1e-6)
        if gradients and factor < 1:
            torch._foreach_mul_(gradients, factor)  # type: ignore[reportPrivateImportUsage]
        present = {group: square**0.5 for group, square in zip(squares, everyone, strict=True) if square}
        return total, present

    def _num_copies(self, name: str, parameter: Tensor) -> int:
        """Ranks, of all, that hold the very part of a parameter that this one does."""
        num_parts = self._layout.config.pipeline * self.divided.num_parts(name)
        if isinstance(parameter, DTensor):
            sizes = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
            for placement, size in sizes:
                num_parts *= 1 if isinstance(placement, Replicate) else size
        return self._layout.config.world_size // num_parts

    def view(self, model: nn.Module) -> View:
        config = self._layout.config
        is_whole = config.context * config.tensor * config.expert * config.pipeline == 1
        is_whole = is_whole and not any(isinstance(p, DTensor) for p in model.parameters())
        if is_whole:
            assert isinstance(model, Transformer)
            return View(model.config, self._evaluate, model.state_dict(), model)
        pipeline = self._layout.mesh["pipeline"].get_group()
        weights = JoinedWeights(model, self.divided, pipeline, self._device)
        return View(model.config, self._evaluate, weights, None, self._generate)  # type: ignore[reportArgumentType]

    def _evaluate(self, scores: Scores, batches: Sequence[Batch]) -> list[Tensor]:
        """Batches are shared out over the processes that see different rows. Those with fewer score the first
        one again, for nothing, since the others wait for them in every pass."""
        if not batches:
            return []
        trained, config = self._prepared[0], self._layout.config
        was_training = trained.module.training
        trained.module.eval()
        multiple = config.context * config.tensor
        numbers = range(self.share.place, -(-len(batches) // self.share.of) * self.share.of, self.share.of)
        chosen = [batches[number if number < len(batches) else 0] for number in numbers]
        own = [self.own(padded_rows(batch.to(self._device), multiple)) for batch in chosen]
        found = trained.evaluate(scores, own)
        trained.module.train(was_training)
        num_rows = [len(batch.token_ids_BT) for batch in batches]
        total = torch.zeros(sum(num_rows), found[0].shape[1], device=self._device)
        of_batches = total.split(num_rows)
        for number, value in zip(numbers, found, strict=True):
            if number < len(batches):
                of_batches[number].copy_(value)
        dist.all_reduce(total, group=self._tokens)
        return list(of_batches)

    def _generate(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingParams, seed: int, stop_ids: set[int]
    ) -> list[list[int]]:
        """Every process works on all prompts."""
        trained = self._prepared[0]
        reader = trained.reader(trained.module.config.num_key_value_heads // self._layout.config.tensor)  # type: ignore[reportAttributeAccessIssue]
        was_training = trained.module.training
        trained.module.eval()
        with whole_rows(trained.called):
            found = generate(reader, prompts, sampling, seed, stop_ids, self._of_first)
        for module in trained.called:
            reshard(module)
        trained.module.train(was_training)
        return found

    def _of_first(self, value: Tensor) -> Tensor:
        dist.broadcast(value, src=0)
        return value

    def fill(self, model: nn.Module, weights: Weights, names: Collection[str]) -> None:
        held = {name: value for name, value in model.state_dict().items() if name in names}
        fill(held, weights, self.divided.segments)

    def check_shared(self, folder: Path) -> None:
        token = folder / self.agreed(f".seen-{uuid4().hex}")
        try:
            if self.is_main:
                token.touch()
            self.wait()
            found: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(found, (token.exists(), socket.gethostname()))
        finally:
            if self.is_main:
                token.unlink(missing_ok=True)
        blind = [f"{rank} (on {host})" for rank, (sees, host) in enumerate(found) if not sees]
        if blind:
            raise BessemerError(
                f"training process {', '.join(blind)} of {len(found)} does not see the folder {folder} of "
                "process 0, where all of them write their parts of checkpoints: keep runs on a file system "
                "that every machine mounts at the same path (--runs-folder)"
            )

    def agreed(self, value: ValueT) -> ValueT:
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self._device)
        return box[0]

    def wait(self) -> None:
        self.agreed(None)

    @property
    def _device(self) -> torch.device:
        kind = self._layout.mesh.device_type
        return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


def _gathered(values: Sequence[float], group: dist.ProcessGroup | None, device: torch.device) -> Tensor:
    """Every rank's values as rows in the order of ranks, float64, equal on all ranks to the last bit: what is
    decided by them is decided alike."""
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, mine, group=group)
    return torch.stack(rows)
