"""What this machine could compute at most, to measure utilisation against (MFU).

GPUs: the vendor's dense peak, by name. Anything else: matrix products timed once and kept in a cache
folder, so that a figure of utilisation does not swing with what else ran while it was calibrated.
"""

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bessemer.runner.files import write_atomically

# Dense peaks in FLOP/s with float32 accumulation, from NVIDIA's data sheets: A100 (2020), H100 and H200
# (2022-2024), L4, L40S, RTX 4090 (2022-2023), B200 (2024). Keys are parts of torch's device names; the first
# that fits counts.
_DEVICE_PEAKS: tuple[tuple[str, dict[torch.dtype, float]], ...] = (
    ("B200", {torch.bfloat16: 2.25e15, torch.float16: 2.25e15}),
    ("H200", {torch.bfloat16: 989e12, torch.float16: 989e12}),
    ("H100 PCIe", {torch.bfloat16: 756e12, torch.float16: 756e12}),
    ("H100", {torch.bfloat16: 989e12, torch.float16: 989e12}),
    ("A100", {torch.bfloat16: 312e12, torch.float16: 312e12, torch.float32: 19.5e12}),
    ("L40S", {torch.bfloat16: 362e12, torch.float16: 362e12}),
    ("L4", {torch.bfloat16: 121e12, torch.float16: 121e12}),
    ("RTX 4090", {torch.bfloat16: 165e12, torch.float16: 165e12}),
)

_SIZES = ((1024, 1024, 1024), (2048, 1024, 1024), (1024, 4096, 1024))
"""(rows, columns, inner) of the products tried; the fastest counts."""
_SECONDS = 0.4
"""Time spent on all of them: long enough for a dozen products on a slow machine."""


@dataclass(frozen=True)
class Peak:
    """A rate of floating-point operations, and where it is from."""

    flops_per_s: float
    source: str
    """`data sheet` or `measured`."""


def peak_of(device: torch.device, dtype: torch.dtype, cache_folder: Path | None = None) -> Peak:
    """The peak for matrix products of `dtype`; measured on first use where no table has it."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peaks in _DEVICE_PEAKS:
            if part in name and dtype in peaks:
                return Peak(peaks[dtype], "data sheet")
    else:
        name = _cpu_name()
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else ""
    key = "|".join((name, threads, str(dtype), torch.__version__))
    path = (cache_folder or cache_root()) / "peaks.json"
    known = _read(path)
    if not isinstance(known.get(key), (int, float)):
        known[key] = measured_flops(device, dtype)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(known, indent=2, sort_keys=True).encode())
        except OSError:
            pass  # a home without room: it is measured again next time
    return Peak(float(known[key]), "measured")


def cache_root() -> Path:
    """`bessemer` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bessemer"


@torch.no_grad()
def measured_flops(device: torch.device, dtype: torch.dtype, seconds: float = _SECONDS) -> float:
    """FLOP/s of the fastest matrix product: the best of many, for other programs only make it slower."""
    best = 0.0
    for rows, columns, inner in _SIZES:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        torch.mm(left, right.T, out=out)
        until = time.perf_counter() + seconds / len(_SIZES)
        while True:
            started = time.perf_counter()
            torch.mm(left, right.T, out=out)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            ended = time.perf_counter()
            best = max(best, 2.0 * rows * columns * inner / (ended - started))
            if ended >= until:
                break
    return best


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, float]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
