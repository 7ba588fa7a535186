"""Training on a Ray cluster of several nodes, all on this machine, of which one is lost."""

import importlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_on_ray import MANY_STEPS, calm, context_in, search_path, written  # noqa: F401
from test_torchrun import losses, run_folder
from test_training_stages import inputs  # noqa: F401

from bessemer.runner.context import StageContext
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.pretrain import PretrainConfig, train_base

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(search_path) -> Iterator[Any]:  # noqa: F811
    """A head that takes no process, two nodes that take one each, and one to spare."""
    found = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(3):
        found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found
    found.shutdown()


def train_and_tell_the_node(config: PretrainConfig, context: StageContext, ranks: Any) -> dict[str, Any]:
    """Pretraining of which the second process tells where it is, and takes its time until it is lost."""
    told = context.scratch / "node-of-1"
    if not ranks.is_main and not told.exists():
        told.write_text(importlib.import_module("ray").get_runtime_context().get_node_id())
        counts = ranks.counts

        def slow_counts(*args: Any) -> Any:
            time.sleep(0.5)
            return counts(*args)

        ranks.counts = slow_counts
    return train_base(config, context, ranks)


def test_after_a_lost_node_all_start_again_on_those_that_are_left(
    calm: Path,  # noqa: F811
    inputs,  # noqa: F811
    cluster: Any,
    tmp_path: Path,
):
    context = context_in(run_folder(tmp_path, inputs), f"ray:{cluster.address}")
    lost: list[str] = []

    def lose_the_node() -> None:
        while not list((context.scratch / "checkpoints").glob("step-*")):
            time.sleep(0.01)
        node_id = (context.scratch / "node-of-1").read_text()
        (node,) = [each for each in cluster.list_all_nodes() if each.node_id == node_id]
        cluster.remove_node(node, allow_graceful=False)
        lost.append(node_id)

    threading.Thread(target=lose_the_node, daemon=True).start()
    on_ranks(train_and_tell_the_node, MANY_STEPS, context)
    assert lost
    restarts = [text for text in context.reporter.said if "restart" in text]
    assert len(restarts) == 1, restarts
    (restart,) = restarts
    assert "training process 1 of 2 (" in restart
    assert "was lost with its node; the others were ended; all start again from step-0" in restart
    assert losses(tmp_path) == losses(calm)
    assert written(tmp_path) == written(calm)
