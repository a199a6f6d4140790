"""Freed memory is kept, where the C library can."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, numpy
from penjing.heap import keep_freed_memory
print(keep_freed_memory())
def use(): return [numpy.ones(3_000_000, numpy.uint8) for _ in range(20)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _ask(monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[str, int]:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, faults = found.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_blocks_are_not_faulted_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, faults = _ask(monkeypatch)
    if kept != "True":
        pytest.skip("this C library has no mallopt")
    assert faults < 1000  # 73,000 pages were written


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")],
)
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    kept, faults = _ask(monkeypatch, **{name: value})
    assert kept == "False"
    assert faults > 10_000  # each block's pages are new again
