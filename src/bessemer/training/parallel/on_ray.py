"""Training stages on Ray: Ray Train runs the processes, on the cluster that curation uses.

What the processes do is what local ones do, with as many threads: same layout, same bytes. A process that
dies, hangs or is cut off is named, and all start again from the newest checkpoint, see `restarts`: each
attempt is a run of Ray Train of its own, see `ray_attempt`. No process is left when this returns.
"""

import importlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from bessemer.errors import BessemerError
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.files import remove_folder
from bessemer.runner.ray_cluster import RayCluster
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.endings import AGAIN, Ending, ProcessesFailed, cause, ray_death_in_words
from bessemer.training.parallel.layout import cpu_threads_per_process
from bessemer.training.parallel.message import packed
from bessemer.training.parallel.process import ranks_folder
from bessemer.training.parallel.ray_attempt import SETTINGS, START_S, Outcome, RayAttempt
from bessemer.training.parallel.ray_places import Node, Part, Place, part_of_process, wait_for_end
from bessemer.training.parallel.ray_rank import NODE_GRACE_S, train_rank
from bessemer.training.parallel.reporters import Shown
from bessemer.training.parallel.restarts import with_restarts

_LOOK_S, _PLACE_S = 3, 300
"""Whole seconds: how long others may take to make room, or a lost node to come back, before and after the
user is told."""
_END_S = 30.0
"""How long to wait until processes that were ended are gone."""
_ASK_S = 0.5


def on_ray(work: Any, config: TrainingConfig, context: StageContext) -> Metrics:
    """Do a stage's work with processes on Ray; the first one's metrics.

    Raises BessemerError when the cluster has too little room or does not see the run folder, or when the
    processes failed again and again; and what the work raises in a process.
    """
    world_size = config.parallel.world_size
    address = context.on.partition(":")[2] or None
    with RayCluster(address, world_size * cpu_threads_per_process(world_size)) as cluster:
        check_ray_train()
        nodes = [_node(each) for each in cluster.nodes()]
        part = part_of_process(nodes, _free_cpus(cluster, nodes), world_size)
        context.say(f"{world_size} processes on Ray, each with {part}")
        with (
            _token(context.scratch) as token,
            _folder(context.scratch / "ray-train") as storage,  # it asks for one; there is nothing to keep
            _folder(ranks_folder(context)),
        ):
            shared = [str(path.resolve()) for path in (token, context.output, context.metrics_path.parent)]
            told = {
                "message": packed(work, config, context),
                "shared": shared,
                "num_threads": part.cpus,
                "has_gpu": part.gpus > 0,
            }
            attempt = _Attempts(cluster.ray, part, config, context, told, str(storage.resolve()))

            def attempted() -> Metrics:
                _wait_for_room(part, world_size, cluster, context)
                return attempt.metrics()

            return with_restarts(attempted, lambda: _newest_checkpoint(context), context.say)


def check_ray_train() -> None:
    """Raises BessemerError where there is a Ray without it."""
    try:
        importlib.import_module("ray.train.torch")
    except ImportError as error:
        raise BessemerError(
            f"training with --on ray needs Ray Train, which cannot be imported ({error}): pip install "
            "'bessemer[ray]' on every node"
        ) from error


def _node(told: dict[str, Any]) -> Node:
    resources = told["Resources"]
    return Node(told["NodeManagerHostname"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _free_cpus(cluster: RayCluster, nodes: Sequence[Node]) -> int:
    if cluster.is_own:  # all of them; Ray may still be counting
        return sum(node.cpus for node in nodes)
    return int(cluster.ray.available_resources().get("CPU", 0))


def _wait_for_room(part: Part, world_size: int, cluster: RayCluster, context: StageContext) -> None:
    """Until Ray could hold all processes. Raises BessemerError when it cannot for a long time."""
    room = cluster.ray.util.placement_group([part.bundle] * world_size, strategy="PACK")
    try:
        if room.wait(_LOOK_S):
            return
        context.say(f"waiting up to {_PLACE_S} s for room on the Ray cluster")
        if room.wait(_PLACE_S):
            return
    finally:  # Ray Train takes its own
        cluster.ray.util.remove_placement_group(room)
    free = cluster.ray.available_resources()
    raise BessemerError(
        f"the Ray cluster has no room for {world_size} processes with {part} each: {free.get('CPU', 0):g} "
        f"CPUs and {free.get('GPU', 0):g} GPUs are free (`ray status` tells who holds the others); end what "
        f"holds them, or start more nodes; then {AGAIN}"
    )


@contextmanager
def _token(scratch: Path) -> Iterator[Path]:
    """A file that only those can see who see this very folder."""
    token = scratch / f".seen-{uuid4().hex}"
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """An empty folder, for a while."""
    remove_folder(path)  # that of a run that was killed
    path.mkdir()
    try:
        yield path
    finally:
        remove_folder(path)


def _newest_checkpoint(context: StageContext) -> str | None:
    return max((path.name for path in (context.scratch / "checkpoints").glob("step-*")), default=None)


class _Attempts:
    """One run of Ray Train after another."""

    def __init__(
        self,
        ray: Any,
        part: Part,
        config: TrainingConfig,
        context: StageContext,
        told: dict[str, Any],
        storage: str,
    ) -> None:
        self._ray = ray
        self._part = part
        self._parallel = config.parallel
        self._context = context
        self._told = told
        self._storage = storage

    def metrics(self) -> Metrics:
        """One attempt. Raises ProcessesFailed, and what the work raises in a process."""
        ray, world_size = self._ray, self._parallel.world_size
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        actor = (
            ray.remote(RayAttempt)
            .options(num_cpus=0, scheduling_strategy=here, runtime_env={"env_vars": SETTINGS})
            .remote()
        )
        places: dict[int, Place] = {}
        task = actor.fit.remote(train_rank, self._told, self._part, world_size, self._storage)
        try:
            outcome = self._watched(actor, task, places)
        finally:
            with suppress(ray.exceptions.RayError):
                actor.stop.remote()  # an attempt that is over does not mind
                ray.wait([task], timeout=_END_S)
                places.update(ray.get(actor.places.remote(), timeout=_ASK_S))
            ray.kill(actor)
            self._wait_until_gone(places.values())
        return self._metrics_of(outcome, places)

    def _watched(self, actor: Any, task: Any, places: dict[int, Place]) -> Outcome:
        """Show what the first process tells until the attempt is over."""
        ray, world_size = self._ray, self._parallel.world_size
        deadline_s = time.monotonic() + 2 * START_S  # for room, and for the processes
        with Shown(self._context.reporter) as shown:
            is_over = False
            while not is_over:
                try:
                    is_over = bool(ray.wait([task], timeout=0)[0])
                    for message in ray.get(actor.news.remote()):
                        shown.take(message)
                    if len(places) < world_size:
                        places.update(ray.get(actor.places.remote()))
                except ray.exceptions.RayActorError as error:
                    what = f"what runs Ray Train on this machine {ray_death_in_words(str(error))}"
                    raise ProcessesFailed(what, f"; {AGAIN}") from error
                if len(places) < world_size and not is_over and time.monotonic() > deadline_s:
                    what = f"the training processes did not start on Ray within {2 * START_S} s"
                    raise ProcessesFailed(what, f"; {AGAIN}")
        return ray.get(task)

    def _metrics_of(self, outcome: Outcome, places: Mapping[int, Place]) -> Metrics:
        if outcome.metrics is not None:
            return outcome.metrics
        world_size = self._parallel.world_size
        endings = [outcome.endings.get(rank, Ending()) for rank in range(world_size)]
        for rank in outcome.is_unsure:
            endings[rank] = replace(endings[rank], death=self._death(places.get(rank), endings[rank]))
        if any(ending.has_failed for ending in endings):
            named = [replace(ending, place=str(places.get(rank, ""))) for rank, ending in enumerate(endings)]
            raise cause(named, self._parallel.timeout_s)
        raise ProcessesFailed(f"Ray Train gave up ({outcome.trouble})", f"; {AGAIN}")

    def _death(self, place: Place | None, ending: Ending) -> str | None:
        """A connection breaks some time before Ray knows that it has lost the node: until then it would place
        the next process there, too."""
        deadline_s = time.monotonic() + NODE_GRACE_S
        while place is not None and time.monotonic() < deadline_s:
            if place.node_id not in self._nodes_alive():
                return "was lost with its node"
            time.sleep(_ASK_S)
        return ending.death

    def _nodes_alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _wait_until_gone(self, places: Iterable[Place]) -> None:
        """Ray ends processes in its own time; those that come next write to the same folder."""
        ray, alive, here = self._ray, self._nodes_alive(), self._ray.get_runtime_context().get_node_id()
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        tasks = [
            ray.remote(num_cpus=0)(wait_for_end)
            .options(scheduling_strategy=pinned(place.node_id, soft=False), max_retries=0)
            .remote(place.pid, _END_S)
            for place in places
            if place.node_id in alive - {here}
        ]
        for place in places:
            if place.node_id == here:
                wait_for_end(place.pid, _END_S)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=_END_S)
