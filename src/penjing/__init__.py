"""Penjing (盆景): grow large models in a small pot.

`penjing.tune(base="minilm", train="tickets.csv", task="classify")` gives a Run; `run.bundle.predict([...])`
uses it.
Importing this package loads nothing heavy: each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "tune": "penjing.jobs.train",
    "pretrain": "penjing.jobs.pretrain",
    "evaluate": "penjing.jobs.evaluate",
    "export": "penjing.jobs.export",
    "report": "penjing.jobs.report",
    "check": "penjing.jobs.check",
    "compress": "penjing.chains.compress",
    "load": "penjing.bundle",
    "Spec": "penjing.spec",
    "Run": "penjing.run",
    "Bundle": "penjing.bundle",
    "PenjingError": "penjing.errors",
}
__all__ = [
    "Bundle",
    "PenjingError",
    "Run",
    "Spec",
    "check",
    "compress",
    "evaluate",
    "export",
    "load",
    "pretrain",
    "report",
    "tune",
]

if TYPE_CHECKING:
    from penjing.bundle import Bundle, load
    from penjing.chains.compress import compress
    from penjing.errors import PenjingError
    from penjing.jobs.check import check
    from penjing.jobs.evaluate import evaluate
    from penjing.jobs.export import export
    from penjing.jobs.pretrain import pretrain
    from penjing.jobs.report import report
    from penjing.jobs.train import tune
    from penjing.run import Run
    from penjing.spec import Spec


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'penjing' has no attribute {name!r}")
    from penjing.threads import wait_without_spinning

    wait_without_spinning()  # before torch is imported, or it has no effect
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
