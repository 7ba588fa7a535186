"""Training stages on Ray: an actor for each process, on the cluster that curation uses.

A placement group holds room for all processes, or for none. It packs them: training talks more than anything
else in a run, and least through the network where neighbours share a node. What the processes do is what
local ones do, with as many threads: same layout, same bytes. A process that dies, hangs or is cut off is
named, and all start again from the newest checkpoint, see `restarts`. No process is left when this returns.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from bessemer.errors import BessemerError
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.ray_cluster import RayCluster
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.endings import (
    AGAIN,
    GRACE_S,
    Ending,
    Failure,
    ProcessesFailed,
    cause,
    ray_death_in_words,
)
from bessemer.training.parallel.layout import cpu_threads_per_process
from bessemer.training.parallel.message import packed
from bessemer.training.parallel.ray_places import Node, Part, by_node, part_of_process
from bessemer.training.parallel.ray_rank import END, Place, RayRank, Seat
from bessemer.training.parallel.reporters import Shown
from bessemer.training.parallel.restarts import with_restarts

_LOOK_S, _PLACE_S = 3, 300
"""Whole seconds: how long others may take to make room, or a lost node to come back, before and after the
user is told."""
_START_S = 300.0
"""How long actors may take to start: they import torch from a file system that may be slow."""
_NODE_GRACE_S = 60.0
"""Where connections broke: until Ray knows which node is gone (it asks each 5 times, 3 s apart and more)."""
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
        nodes = [_node(each) for each in cluster.nodes()]
        part = part_of_process(nodes, _free_cpus(cluster, nodes), world_size)
        context.say(f"{world_size} processes on Ray, each with {part}")
        with _room(cluster.ray, part, world_size) as room, _token(context.scratch) as token:
            group = _Group(cluster.ray, room, part, config, context)
            message = packed(work, config, context)
            shared = [str(path.resolve()) for path in (token, context.output, context.metrics_path.parent)]

            def attempt() -> Metrics:
                _wait_for(room, part, world_size, cluster, context)
                return group.train(message, shared)

            return with_restarts(attempt, lambda: _newest_checkpoint(context), context.say)


def _node(told: dict[str, Any]) -> Node:
    resources = told["Resources"]
    return Node(told["NodeManagerHostname"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _free_cpus(cluster: RayCluster, nodes: Sequence[Node]) -> int:
    if cluster.is_own:  # all of them; Ray may still be counting
        return sum(node.cpus for node in nodes)
    return int(cluster.ray.available_resources().get("CPU", 0))


@contextmanager
def _room(ray: Any, part: Part, world_size: int) -> Iterator[Any]:
    """A placement group, which stays over restarts; Ray makes up for nodes that it loses."""
    room = ray.util.placement_group([part.bundle] * world_size, strategy="PACK")
    try:
        yield room
    finally:
        ray.util.remove_placement_group(room)


def _wait_for(room: Any, part: Part, world_size: int, cluster: RayCluster, context: StageContext) -> None:
    """Until Ray holds the room free. Raises BessemerError when it does not for a long time."""
    if room.wait(_LOOK_S):
        return
    context.say(f"waiting up to {_PLACE_S} s for room on the Ray cluster")
    if room.wait(_PLACE_S):
        return
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


def _newest_checkpoint(context: StageContext) -> str | None:
    return max((path.name for path in (context.scratch / "checkpoints").glob("step-*")), default=None)


class _Group:
    """The actors of one attempt after another."""

    def __init__(
        self, ray: Any, room: Any, part: Part, config: TrainingConfig, context: StageContext
    ) -> None:
        self._ray = ray
        self._room = room
        self._part = part
        self._parallel = config.parallel
        self._context = context

    def train(self, message: bytes, shared: Sequence[str]) -> Metrics:
        """One attempt. Raises ProcessesFailed, and what the work raises in a process."""
        actors = [self._actor(number) for number in range(self._parallel.world_size)]
        tasks: list[Any] = []
        try:
            try:
                actors, places, port = self._gathered(actors, shared)
            except self._ray.exceptions.RayActorError as error:
                what = f"a training process {ray_death_in_words(str(error))} at its start"
                raise ProcessesFailed(what, f"; {AGAIN}") from error
            addresses = tuple(place.address for place in places)
            for rank, actor in enumerate(actors):
                tasks.append(actor.train.remote(message, Seat(rank, addresses, port, self._part.cpus)))
            with Shown(self._context.reporter) as shown:
                return self._watch(actors, tasks, places, shown)
        finally:
            for actor in actors:
                self._ray.kill(actor)
            # Those that come next write to the same folder.
            if tasks:
                self._ray.wait(tasks, num_returns=len(tasks), timeout=_END_S)

    def _actor(self, number: int) -> Any:
        ray, part = self._ray, self._part
        at = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            self._room, placement_group_bundle_index=number
        )
        options = {"num_cpus": part.cpus, "num_gpus": part.gpus, "max_restarts": 0, "max_concurrency": 2}
        return ray.remote(RayRank).options(**options, scheduling_strategy=at).remote(part.gpus > 0)

    def _gathered(self, actors: Sequence[Any], shared: Sequence[str]) -> tuple[list[Any], list[Place], int]:
        """Actors by rank, where they run, and the port of the first one's store."""
        found = self._all([actor.place.remote() for actor in actors])
        order = by_node([place.address for place in found])
        actors, places = [actors[number] for number in order], [found[number] for number in order]
        unseen = self._all([actor.unseen.remote(shared) for actor in actors])
        for place, paths in zip(places, unseen, strict=True):
            if paths:
                raise BessemerError(
                    f"node {place.hostname} does not see the run folder as this machine does: there, "
                    f"{Path(paths[0]).parent} is missing, another, or may not be written. Keep runs on a "
                    "file system that every node mounts at the same path (--runs-folder)"
                )
        world_size, timeout_s = self._parallel.world_size, self._parallel.timeout_s
        (port,) = self._all([actors[0].listen.remote(places[0].address, world_size, timeout_s)])
        return actors, places, port

    def _all(self, handles: Sequence[Any]) -> list[Any]:
        try:
            return self._ray.get(list(handles), timeout=_START_S)
        except self._ray.exceptions.GetTimeoutError as error:
            what = f"the training processes did not start on Ray within {_START_S:g} s"
            raise ProcessesFailed(what, f"; {AGAIN}") from error

    def _watch(
        self, actors: Sequence[Any], tasks: Sequence[Any], places: Sequence[Place], shown: Shown
    ) -> Metrics:
        """Until all have ended well; the first one's metrics. Raises for those that have not."""
        endings = [Ending(place=str(place)) for place in places]
        results: dict[int, Any] = {}
        ranks = {task: rank for rank, task in enumerate(tasks)}
        news: Any = actors[0].news.remote()
        failed_s: float | None = None
        while ranks or news is not None:
            left_s = None if failed_s is None else failed_s + _grace_s(endings) - time.monotonic()
            if left_s is not None and left_s <= 0:
                break
            waited_for = [*ranks, *([news] if news is not None else [])]
            for handle in self._ray.wait(waited_for, num_returns=1, timeout=left_s)[0]:
                if handle == news:
                    news = self._next_news(actors[0], handle, shown)
                    continue
                rank = ranks.pop(handle)
                results[rank], endings[rank] = self._ended(handle, actors[rank], places[rank])
            if failed_s is None and any(ending.has_failed for ending in endings):
                failed_s = time.monotonic()
        if failed_s is not None:
            raise cause(endings, self._parallel.timeout_s)
        return results[0]

    def _next_news(self, first: Any, handle: Any, shown: Shown) -> Any:
        """Show the news; where the next are to come from, None after the last."""
        try:
            messages = self._ray.get(handle)
        except self._ray.exceptions.RayError:  # it died, as the task of its training tells
            return None
        for message in messages:
            if message == END:
                return None
            shown.take(message)
        return first.news.remote()

    def _ended(self, task: Any, actor: Any, place: Place) -> tuple[Any, Ending]:
        exceptions, result, death = self._ray.exceptions, None, None
        try:
            result = self._ray.get(task)
        except exceptions.ActorUnavailableError as error:
            death = self._death_of_unavailable(actor, error)
        except exceptions.RayError as error:
            death = ray_death_in_words(str(error))
        failure = result if isinstance(result, Failure) else None
        return result, Ending(is_over=True, failure=failure, death=death, place=str(place))

    def _death_of_unavailable(self, actor: Any, error: Exception) -> str:
        """A connection breaks some time before Ray knows that it has lost the node: until then it would place
        the next process there, too."""
        exceptions, deadline_s = self._ray.exceptions, time.monotonic() + _NODE_GRACE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._ray.get(actor.place.remote(), timeout=left_s)
                break
            except (exceptions.ActorUnavailableError, exceptions.GetTimeoutError):
                time.sleep(_ASK_S)
            except exceptions.RayActorError as later:
                return ray_death_in_words(str(later))
        return ray_death_in_words(str(error))


def _grace_s(endings: Sequence[Ending]) -> float:
    """How long to wait for the others after one has failed."""
    failures = [ending.failure for ending in endings if ending.failure is not None]
    is_cut_off = all(failure.kind == "lost" for failure in failures)
    return _NODE_GRACE_S if is_cut_off and not any(ending.death for ending in endings) else GRACE_S
