"""Where a run comes from: base, data and versions, so that it can be repeated and trusted."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from penjing.device import Machine
from penjing.jobs.parent import about
from penjing.jobs.prepare import Data, Ready
from penjing.models.sizing import count
from penjing.spec import Spec

PACKAGES = ("penjing", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "scikit-learn")


def lineage(spec: Spec, machine: Machine, data: Data, made: Ready) -> dict[str, Any]:
    """The lineage as a JSON object."""
    total, trainable = count(made.model)
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "folder": str(Path.cwd()),
        "spec": spec.written(),
        "parent": None if spec.parent is None else about(spec.parent),
        "base": {
            "name": made.base.name,
            "sha256": made.base.sha256,
            "parameters": total,
            "trainable": trainable,
            "way": "packed" if made.base.way.packed else f"padded: {made.base.way.reason}",
            "pooling": getattr(made.model.head, "pooling", made.base.pooling),
        },
        "data": data.sources,
        "versions": versions(),
        "seed": spec.seed,
        "device": str(machine.device),
        "precision": machine.precision,
        "threads": machine.threads,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def versions(*more: str) -> dict[str, str]:
    """Releases of Python, of the packages that decide a run's numbers, and of more."""
    return {"python": platform.python_version(), **{p: _version(p) for p in (*PACKAGES, *more)}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
