"""What this machine is and what it gains from: device, precision, threads, matrix peak, peak memory."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from penjing.errors import NotSupported
from penjing.files import CannotWrite, cache_folder, write_json
from penjing.heap import keep_freed_memory
from penjing.plural import counted
from penjing.threads import cores

CGROUPS = (  # limit and use of a container's memory, version 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
LOOK_AGAIN = 30.0  # seconds, after which other programs may have come or gone
ROUNDING = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)


@dataclass(frozen=True)
class Machine:
    """Where a job runs and how."""

    device: torch.device
    precision: str  # fp32, bf16 or fp16
    threads: int
    notes: tuple[str, ...] = ()


def choose(device: str = "auto", precision: str = "auto") -> Machine:
    """Settle device, precision and threads.

    Raises:
        NotSupported: a device that is not here, bf16 where it cannot be computed, or fp16 but on CUDA.
    """
    notes: list[str] = []
    name = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        if place.type == "meta":
            raise RuntimeError("it computes nothing")
        if place.type == "cuda" and (
            not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count()
        ):
            raise RuntimeError(f"there are {torch.cuda.device_count()} CUDA devices")
        torch.zeros(1, device=place)
        if precision == "bf16" and place.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise RuntimeError("it has no bf16; say `precision: fp32`")
    except (RuntimeError, AssertionError) as error:
        raise NotSupported(
            f"The device `{device}` was asked for; it cannot be used here ({str(error).splitlines()[0]}). "
            f"Use `device: auto`, which takes what there is."
        ) from error
    if precision == "fp16" and place.type != "cuda":
        raise NotSupported(
            f"`precision: fp16` was asked for; it would run on {place.type}, where fp16 is slow and gains "
            f"nothing over bf16. Say `precision: auto`, or `device: cuda` where there is one."
        )
    threads = set_threads()
    if place.type == "cpu":
        keep_freed_memory()
    free, ours = _free_cores(int(time.monotonic() // LOOK_AGAIN))
    if place.type == "cpu" and free < 0.5 * threads:
        notes.append(
            f"other programs keep about {ours - free:.1f} of the {counted(ours, 'core')} that this process "
            f"may use busy: steps will be slower, and times are not to be trusted"
        )
    if precision == "auto":
        precision = "bf16" if gains_from_bf16(place) else "fp32"
    return Machine(place, precision, threads, tuple(notes))


def set_threads() -> int:
    """One thread a core, and no more than $OMP_NUM_THREADS when the user has set it."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    n = min(cores(), int(wanted)) if wanted.isdigit() and int(wanted) > 0 else cores()
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)
    return n


@lru_cache(maxsize=1)
def _free_cores(now: int) -> tuple[float, int]:
    """Cores that other processes leave free just now, looked at for a tenth of a second, and how many this
    one may run on: what keeps the other cores of a large machine busy takes nothing from it.

    now: what was seen at one such time holds as long as it is the same.
    """
    try:
        import psutil
    except ImportError:
        return float(cores()), cores()
    me = psutil.Process()
    all_ours = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None

    def look() -> tuple[int, float, float]:
        each = psutil.cpu_times(percpu=True)
        ours = [each[i] for i in all_ours if i < len(each)] if all_ours else each
        idle = sum(one.idle + getattr(one, "iowait", 0.0) for one in ours)
        return len(ours), idle, sum(me.cpu_times()[:2])

    n, idle, mine = look()
    time.sleep(0.1)
    _, idle_after, mine_after = look()
    return min(n, (idle_after - idle + mine_after - mine) / 0.1), n


def gains_from_bf16(device: torch.device) -> bool:
    """True when bf16 matrix products are at least 1.3 times as fast as fp32 here."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    peaks = matrix_peaks()
    return peaks["bf16"] > 1.3 * peaks["fp32"]


def matrix_peaks(*, again: bool = False) -> dict[str, float]:
    """The CPU's matrix rate in GFLOP/s by type, measured in half a second and kept in the cache."""
    measure = lambda: {"fp32": _rate(torch.float32), "bf16": _rate(torch.bfloat16)}  # noqa: E731
    return remembered("peaks", measure, again=again)


def remembered(
    what: str, measure: Callable[[], dict[str, float]], *, again: bool = False
) -> dict[str, float]:
    """What was measured on this machine with this torch and number of threads, from the cache where it is."""
    folder = cache_folder()
    path = folder / "machine.json" if folder else None
    key = f"{what}|{processor()}|{torch.__version__}|{torch.get_num_threads()}"
    kept: dict[str, dict[str, float]] = {}
    if path and path.is_file():
        with contextlib.suppress(ValueError, OSError):
            kept = dict(json.loads(path.read_text(encoding="utf-8")))
    if not again and key in kept:
        return kept[key]
    found = measure()
    if path:
        with contextlib.suppress(CannotWrite):
            write_json(path, {**kept, key: found})
    return found


def _rate(dtype: torch.dtype, n: int = 1024, budget_s: float = 0.25) -> float:
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    torch.mm(a, b)
    best, end = float("inf"), time.perf_counter() + budget_s
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def processor() -> str:
    """The CPU's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    import platform

    return platform.processor() or platform.machine()


def capabilities() -> dict[str, Any]:
    """What the CPU is and which of its instructions decide how numbers round: its name, torch's word for its
    vector width, and the flags among those that int8 and bf16 kernels look for."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.split(":", 1)[1].split())
                break
    known = [flag for flag in ROUNDING if flag in flags]
    return {"cpu": processor(), "vector": torch.backends.cpu.get_cpu_capability(), "flags": known}


def resident_mib(device: torch.device) -> float:
    """Memory held now, MiB: of the device on CUDA, resident of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


def free_mib(device: torch.device) -> float:
    """Memory that a job may still take, MiB: of the device on CUDA, elsewhere of the machine, or of the
    container where that is less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # `max` is no number: no limit
            free = min(free, float(Path(limit).read_text()) - float(Path(used).read_text()))
    return max(0.0, free) / 2**20


def peak_mib(device: torch.device) -> float:
    """Highest memory so far, MiB: of the device on CUDA, resident of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, StopIteration):
        # not getrusage: its peak begins at that of the process which started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    try:
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    except ImportError:  # Windows
        import psutil

        return float(getattr(psutil.Process().memory_info(), "peak_wset", 0)) / 2**20
