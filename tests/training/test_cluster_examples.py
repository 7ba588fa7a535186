"""The examples for Slurm and Kubernetes: their command lines, run by two torchrun agents on this machine.

`srun` and `scontrol` are stand-ins, and `torchrun` stands for the one of this environment; the recipe ends
with its first training stage.
"""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "docs" / "examples" / "slurm.sbatch"
KUBERNETES = ROOT / "docs" / "examples" / "kubernetes.yaml"
RECIPE = ROOT / "recipes" / "tiny.yaml"
OPTIONS = ["--set", "base.parallel.data=2", "--set", "base.tokens=8k", "--until", "base"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def environment(programs: Path) -> dict[str, str]:
    """With `torchrun`, which is told not to look for this machine's name."""
    torchrun = f'exec {sys.executable} -m torch.distributed.run --local-addr 127.0.0.1 "$@"'
    program(programs, "torchrun", torchrun)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def documents() -> dict[str, Any]:
    """Of the Kubernetes example, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text())}


def test_the_slurm_script_is_sound_shell_and_refuses_to_start_without_a_recipe() -> None:
    assert subprocess.run(["bash", "-n", SLURM], check=False).returncode == 0
    bare = {name: value for name, value in os.environ.items() if name not in ("RECIPE", "RUNS")}
    done = subprocess.run(["bash", SLURM], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "give the path of a recipe" in done.stderr


def test_the_kubernetes_pods_meet_at_the_first_by_a_name_that_the_service_gives() -> None:
    service, job = documents()["Service"], documents()["Job"]
    spec = job["spec"]
    pod = spec["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    name = job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert f"--nnodes={spec['completions']}" in arguments
    assert f"--rdzv-endpoint={name}-0.{pod['subdomain']}:29500" in arguments
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.slow
def test_the_slurm_script_runs_a_recipe_on_two_nodes(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    # As srun does: the command once a node; it fails when one of them does.
    program(
        programs,
        "srun",
        'shift\n"$@" & first=$!\n"$@" & second=$!\nwait $first; a=$?\nwait $second; b=$?\nexit $((a | b))',
    )
    program(
        programs, "scontrol", 'if [ "$3" != "node[1-2]" ]; then exit 1; fi\nprintf "127.0.0.1\\nnode2\\n"'
    )
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "17"}
    given = {"RECIPE": str(RECIPE), "RUNS": str(tmp_path / "runs"), "PORT": str(free_port())}
    done = subprocess.run(
        ["bash", SLURM, *OPTIONS],
        env=environment(programs) | slurm | given,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "tiny" / "base" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_command_of_the_kubernetes_pods_runs_a_recipe(tmp_path: Path) -> None:
    container = documents()["Job"]["spec"]["template"]["spec"]["containers"][0]
    there = {
        "bessemer-0.bessemer:29500": f"127.0.0.1:{free_port()}",
        "/shared/recipe.yaml": str(RECIPE),
        "/shared/runs": str(tmp_path / "runs"),
    }
    command = [*container["command"], *container["args"]]
    for theirs, ours in there.items():
        assert sum(theirs in part for part in command) == 1
        command = [part.replace(theirs, ours) for part in command]
    pods: list[subprocess.Popen[str]] = [
        subprocess.Popen(
            [*command, *OPTIONS], env=environment(tmp_path / "programs"), stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    with ThreadPoolExecutor() as pool:
        errors = list(pool.map(lambda pod: pod.communicate(timeout=400)[1], pods))
    assert [pod.returncode for pod in pods] == [0, 0], errors
    assert (tmp_path / "runs" / "tiny" / "base" / "model.safetensors").exists()
