"""What stands beside every number (machine, load, matrix peak), and how tables and JSON are written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.sets import Split
from bench.systems import Settings


def facts(settings: Settings, split: Split) -> dict[str, Any]:
    """Machine, versions, settings and rows, for the JSON; nothing of where files lie."""
    versions = {}
    for package in ("torch", "transformers", "peft", "accelerate", "penjing"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processor": processor(),
        "device": settings.device,
        "python": platform.python_version(),
        "versions": versions,
        "settings": {key: value for key, value in asdict(settings).items() if key != "folder"},
        "rows": {**split.n_rows, "labels": split.n_labels, "validation": split.note, "name": split.name},
    }


def processor() -> str:
    """The processor's name and the cores this process may use."""
    name = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.is_file():
        named = [
            line.split(":", 1)[1].strip() for line in path.read_text().splitlines() if "model name" in line
        ]
        name = named[0] if named else name
    from penjing.threads import cores

    return f"{name}, {cores()} cores"


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes."""
    return [round(x, 2) for x in os.getloadavg()]


def while_others(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `act` reports (with its own `cpu_s`), and how many cores others kept busy meanwhile (`others`)."""
    import psutil

    before, mine, began = psutil.cpu_times(), time.process_time(), time.perf_counter()
    found = act()
    after, seconds = psutil.cpu_times(), time.perf_counter() - began
    busy = _busy(after) - _busy(before) - found.get("cpu_s", 0.0) - (time.process_time() - mine)
    return {**found, "others": round(max(0.0, busy / seconds), 2)}


def _busy(times: Any) -> float:
    idle = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - counted_twice)


def matrix_peaks(device: str) -> dict[str, float]:
    """GFLOP/s of the device's matrix product by type, measured now."""
    if not device.startswith("cuda"):
        from penjing import device as ours

        ours.set_threads()
        return ours.matrix_peaks(again=True)
    import torch

    return {"fp32": _cuda_rate(torch.float32), "bf16": _cuda_rate(torch.bfloat16)}


def _cuda_rate(dtype: Any, n: int = 8192) -> float:
    import torch

    a = torch.randn(n, n, device="cuda", dtype=dtype)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(a, a)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best / 1e9


def table(lines: list[dict[str, Any]]) -> None:
    """Print lines with the same keys as an aligned table."""
    if not lines:
        print("(nothing)")
        return
    keys = list(lines[0])
    cells = [keys, *[[str(line.get(key, "")) for key in keys] for line in lines]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(keys))]
    for n, row in enumerate(cells):
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
        if n == 0:
            print("  ".join("-" * w for w in widths))


def write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)
