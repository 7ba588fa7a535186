"""What a stage costs: time, CPU, memory, energy, measured while it runs and kept over kill -9.

What is measured: wall time; CPU time of this process and of the child processes it has waited for
(getrusage); resident memory of this process and all its descendants, sampled four times a second
(from /proc, so a page that several processes share counts once for each). Where there is no /proc
the peak is the operating system's own for this process. Energy is an estimate, see `WATTS_PER_CORE`.
"""

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import Cost

WATTS_PER_CORE = 10.0
"""Assumed power of one busy core. Server CPUs of 2017-2024 are specified at 3 to 12 W of thermal design
power a core; memory, fans and power supply add to it. A GPU is not counted."""

_SAMPLE_EVERY_S = 0.25
_SAVE_EVERY_S = 2.0


class CostMeter:
    """Measures one attempt at a stage inside a `with` block and adds it to those before.

    The attempt is written to `path` every two seconds, so a killed one is known but for its last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._earlier = read_attempts(path)
        self._stop = threading.Event()
        self._peak_bytes = 0
        self._thread = threading.Thread(target=self._watch, name="cost meter", daemon=True)
        self._start_s = time.monotonic()
        self._start_cpu_s = cpu_seconds()

    def __enter__(self) -> "CostMeter":
        self._sample()
        self._save()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self._save()

    @property
    def num_attempts(self) -> int:
        return len(self._earlier) + 1

    def total(self, flops: float) -> Cost:
        """The sum over all attempts so far; memory is the largest."""
        attempts = [*self._earlier, self._attempt()]
        cpu_s = sum(attempt["cpu_s"] for attempt in attempts)
        return Cost(
            wall_s=round(sum(attempt["wall_s"] for attempt in attempts), 3),
            cpu_s=round(cpu_s, 3),
            peak_memory_bytes=max(attempt["peak_memory_bytes"] for attempt in attempts),
            flops=flops,
            energy_wh=round(cpu_s * WATTS_PER_CORE / 3600, 6),
            attempts=len(attempts),
        )

    def _attempt(self) -> dict[str, Any]:
        return {
            "wall_s": time.monotonic() - self._start_s,
            "cpu_s": cpu_seconds() - self._start_cpu_s,
            "peak_memory_bytes": self._peak_bytes,
        }

    def _sample(self) -> None:
        self._peak_bytes = max(self._peak_bytes, resident_bytes())

    def _save(self) -> None:
        try:
            write_atomically(self._path, json.dumps([*self._earlier, self._attempt()]).encode())
        except OSError as error:
            # A full disk must stop the stage with its own message, not its bookkeeping with this one.
            print(f"cost of this attempt not saved: {error}", file=sys.stderr)

    def _watch(self) -> None:
        saved_s = time.monotonic()
        while not self._stop.wait(_SAMPLE_EVERY_S):
            self._sample()
            if time.monotonic() - saved_s >= _SAVE_EVERY_S:
                self._save()
                saved_s = time.monotonic()


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """Attempts recorded so far; none when the file is absent."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return []


def cpu_seconds() -> float:
    """User and system time of this process and of the children it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def resident_bytes() -> int:
    """Resident memory of this process and its descendants now (without /proc: its own peak so far)."""
    if not os.path.exists("/proc/self/statm"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * page_bytes
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    waiting += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked, or this kernel does not list children
    return total
