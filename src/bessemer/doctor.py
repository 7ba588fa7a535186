"""`bessemer doctor`: is this machine fit to run recipes? Each check says how to mend what it finds."""

import os
import platform
import re
import shutil
import sys
import tomllib
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Literal

from bessemer.runner.progress import data_size
from bessemer.runner.versions import NOT_INSTALLED, bessemer_version, version_tuple

Outcome = Literal["ok", "warn", "fail"]

LEAST_MEMORY_BYTES = 4 * 2**30
"""The quickstart recipe's largest stage, training, needs under 3 GiB; the rest is for the system."""
LEAST_DISK_BYTES = 5 * 2**30
"""Several times what the quickstart recipe writes with checkpoints."""

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*([^;]*)(;.*)?")
_BOUND = re.compile(r"\s*(>=|==)\s*([0-9][0-9A-Za-z.+]*)\s*")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    detail: str
    mend: str = ""
    """What to do about it; empty when nothing is wrong."""

    name_width: ClassVar[int] = 0
    """Of the column that names have in a list of checks of one kind."""

    def __str__(self) -> str:
        mend = f"\n      → {self.mend}" if self.mend else ""
        return f"{self.outcome:4}  {self.name + ':':{self.name_width}} {self.detail}{mend}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine_machine(runs_folder: Path) -> list[Check]:
    """Python, packages, processor, devices, threads, memory, and the disk under `runs_folder`."""
    return [
        check_python(),
        *check_packages(requirements()),
        check_processor(),
        *check_torch(),
        check_memory(),
        check_disk(runs_folder),
    ]


def check_python() -> Check:
    version, detail = sys.version_info[:2], f"{platform.python_version()} on {platform.platform()}"
    if version < (3, 11):
        return Check("python", "fail", detail, "install Python 3.11 or newer")
    return Check("python", "ok", detail)


def requirements() -> list[str]:
    """What bessemer requires: from its installed metadata, or from the checkout's pyproject.toml."""
    if bessemer_version() != NOT_INSTALLED:
        return metadata.requires("bessemer") or []
    return tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]


def check_packages(wanted: list[str]) -> list[Check]:
    """One check for every package that is missing or too old, else one for all; extras are left out."""
    faults, found = [], []
    for line in wanted:
        match = _REQUIREMENT.fullmatch(line)
        if match is None or "extra" in (match[3] or ""):
            continue
        name, bounds = match[1], match[2]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            faults.append(Check(name, "fail", "not installed", f"pip install '{name}{bounds.strip()}'"))
            continue
        found.append(f"{name} {version}")
        if not satisfies(version, bounds):
            detail = f"{version} is installed, {bounds.strip()} is required"
            faults.append(Check(name, "fail", detail, f"pip install '{name}{bounds.strip()}'"))
    return faults or [Check("packages", "ok", ", ".join(found))]


def satisfies(version: str, bounds: str) -> bool:
    """Whether a version meets `>=` and `==` bounds, by release numbers; other operators are not judged."""
    for bound in bounds.split(","):
        match = _BOUND.fullmatch(bound)
        if match is None:
            continue
        have, want = version_tuple(version), version_tuple(match[2])
        width = max(len(have), len(want))
        have, want = have + (0,) * (width - len(have)), want + (0,) * (width - len(want))
        if have != want if match[1] == "==" else have < want:
            return False
    return True


def check_processor() -> Check:
    """Cores that this process may use, and the instruction sets that decide the speed of training."""
    cores = available_cores()
    info = Path("/proc/cpuinfo")
    flags = set(re.findall(r"\S+", info.read_text())) if info.exists() else set()
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd") if name in flags]
    detail = f"{platform.machine()}, {cores} cores, {', '.join(sets) or 'instruction sets unknown'}"
    if flags and not sets:
        return Check("processor", "warn", detail, "training will be slow: use a machine with AVX2 or newer")
    return Check("processor", "ok", detail)


def check_torch() -> list[Check]:
    """Whether torch loads, which devices it sees, and how many threads it uses."""
    try:
        import torch
    except ImportError as error:
        return [Check("torch", "fail", f"does not load: {error}", "install torch again for this platform")]
    devices = [
        f"cuda:{index} {torch.cuda.get_device_name(index)} "
        f"({data_size(torch.cuda.get_device_properties(index).total_memory)})"
        for index in range(torch.cuda.device_count())
    ]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    threads, cores = torch.get_num_threads(), available_cores()
    detail = f"{threads} threads for {cores} cores"
    threads_check = Check("threads", "ok", detail)
    if threads > cores:
        mend = f"set OMP_NUM_THREADS={cores}: more threads than cores slow each other down"
        threads_check = Check("threads", "warn", detail, mend)
    return [Check("devices", "ok", ", ".join(devices) or "cpu only"), threads_check]


def check_memory() -> Check:
    """Memory that is free now."""
    available = available_memory_bytes()
    detail = f"{data_size(available)} available"
    if available < LEAST_MEMORY_BYTES:
        return Check("memory", "warn", detail, "close other programs, or lower batch and model size")
    return Check("memory", "ok", detail)


def check_disk(folder: Path) -> Check:
    """Free space where the runs go, and whether files can be written there."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    detail = f"{data_size(free)} free at {existing}"
    if not os.access(existing, os.W_OK):
        return Check("disk", "fail", f"{existing} cannot be written", "give another place with --runs-folder")
    if free < LEAST_DISK_BYTES:
        return Check("disk", "warn", detail, "free some space, or give another place with --runs-folder")
    return Check("disk", "ok", detail)


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int:
    """MemAvailable where the kernel tells (Linux), else all memory of the machine."""
    info = Path("/proc/meminfo")
    if info.exists() and (match := re.search(r"MemAvailable:\s+(\d+) kB", info.read_text())):
        return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
