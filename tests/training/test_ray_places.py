"""Which part of a Ray cluster each training process takes: without a Ray."""

import os
import subprocess
import sys
import threading
import time

import pytest

from bessemer.errors import BessemerError
from bessemer.training.parallel import interfaces
from bessemer.training.parallel.ray_places import Node, Part, part_of_process, wait_for_end


def cpu_nodes(*cpus: int) -> list[Node]:
    return [Node(f"node-{number}", each, 0) for number, each in enumerate(cpus)]


@pytest.mark.parametrize(
    ("nodes", "free_cpus", "world_size", "part"),
    [
        (cpu_nodes(2), 2, 2, Part(1, 0)),
        (cpu_nodes(16), 16, 4, Part(4, 0)),
        (cpu_nodes(16, 16), 32, 2, Part(16, 0)),
        (cpu_nodes(16, 6), 22, 3, Part(6, 0)),
        (cpu_nodes(16, 6), 22, 4, Part(5, 0)),
        (cpu_nodes(16), 15, 4, Part(3, 0)),
        (cpu_nodes(16), 1, 4, Part(1, 0)),
        ([Node("head", 8, 0), Node("a", 32, 4), Node("b", 32, 4)], 72, 8, Part(8, 1)),
        ([Node("head", 8, 0), Node("a", 32, 4), Node("b", 32, 4)], 72, 2, Part(8, 1)),
        ([Node("a", 16, 8), Node("b", 64, 8)], 80, 16, Part(2, 1)),
    ],
    ids=[
        "one each",
        "equal shares",
        "a node each",
        "nodes of different size",
        "no share over two nodes",
        "some are taken",
        "nearly all are taken",
        "GPUs",
        "no more CPUs than a GPU's",
        "the node with fewest",
    ],
)
def test_each_process_has_as_many_cpus_as_all_can_have(nodes, free_cpus, world_size, part):
    assert part_of_process(nodes, free_cpus, world_size) == part


def test_too_few_cpus_are_refused_with_what_there_is():
    with pytest.raises(
        BessemerError,
        match=r"^4 training processes take a CPU each at least, and the Ray cluster has 3 "
        r"\(node-0: 1, node-1: 2\): start more nodes, or make the product of `parallel` smaller$",
    ):
        part_of_process(cpu_nodes(1, 2), 3, 4)


def test_too_few_gpus_are_refused_with_what_there_is():
    with pytest.raises(
        BessemerError, match=r"take a GPU each, and the Ray cluster has 2 \(a: 2\): .* most 2"
    ):
        part_of_process([Node("a", 64, 2)], 64, 4)


def test_cpus_of_nodes_without_a_gpu_are_none_for_processes_with_one():
    with pytest.raises(BessemerError, match="take a CPU beside its GPU each at least"):
        part_of_process([Node("head", 64, 0), Node("a", 1, 2)], 65, 2)


def test_a_part_is_told_as_ray_and_as_people_have_it():
    assert Part(4, 1).bundle == {"CPU": 4, "GPU": 1}
    assert Part(1, 0).bundle == {"CPU": 1}
    assert [str(Part(1, 0)), str(Part(4, 1))] == ["1 CPU", "4 CPUs and a GPU"]


def test_a_process_is_waited_for_until_it_is_gone_or_the_time_is_up():
    started_s = time.monotonic()
    wait_for_end(os.getpid(), 0.2)
    assert time.monotonic() - started_s >= 0.2
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ender = threading.Timer(0.1, child.communicate)
    ender.start()
    wait_for_end(child.pid, 60)
    assert child.returncode is not None
    ender.join()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_the_interface_of_an_address_is_found_and_a_choice_that_was_made_is_kept(monkeypatch):
    assert interfaces.interface_of("127.0.0.1") == "lo"
    assert interfaces.interface_of("203.0.113.9") is None  # RFC 5737: nobody's
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    interfaces.prefer_interface_of("203.0.113.9")
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    interfaces.prefer_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
