"""The machine as a job finds it."""

import os
from types import SimpleNamespace

import psutil
import pytest

from penjing import device


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
@pytest.mark.parametrize(("idle", "told"), [({3: 0.1}, False), ({3: 0.0}, True)])
def test_only_what_keeps_our_own_cores_busy_is_told(
    idle: dict[int, float], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight cores seven are always busy; the eighth is the only one that this process may use."""
    clock = iter([0.0, 1.0])

    def times(percpu: bool) -> list[SimpleNamespace]:
        now = next(clock)
        return [SimpleNamespace(idle=now * idle.get(i, 0.0)) for i in range(8)]

    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(cpu_times=lambda: (0.0, 0.0)))
    device._free_cores.cache_clear()
    notes = device.choose("cpu", precision="fp32").notes
    assert any("the 1 core that this process may use" in note for note in notes) == told
    device._free_cores.cache_clear()  # what stands there was made up
