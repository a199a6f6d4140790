"""Programs that nobody has read, run in a process that can do little: unit tests of code that a model wrote.

The process has an empty folder of its own, limits of time, memory and size of files, no network, no other
processes, nothing to write outside its folder and nothing to read beyond Python itself. `sandboxed.py` puts
the walls up from inside, before the program runs; which of them this system has, `walls()` tells. It is for
code that is wrong, or careless; for code that attacks take a machine of its own as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("sandboxed.py")
REASONS = ("passed", "failed", "syntax error", "timeout", "memory", "crashed")
SLACK_S = 10.0  # for Python itself to begin, on a busy machine
MOST_SAID = 65_536  # bytes that the process may report


@dataclass(frozen=True)
class Outcome:
    """How a program ended: one of `REASONS`, what it complained of in a line, and which walls stood."""

    reason: str
    detail: str = ""
    walls: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.reason == "passed"


def run(program: str, *, seconds: float = 5.0, memory_mib: int = 1024, file_mib: int = 4) -> Outcome:
    """Run a Python program to its end. `passed`: it came there without an exception, and did not leave early.

    seconds: of processor time, and twice that of time. memory_mib: of address space. file_mib:
    of each file that it writes.
    """
    nonce = secrets.token_hex(16)
    asked = {
        "program": program,
        "nonce": nonce,
        "seconds": seconds,
        "memory_mib": memory_mib,
        "file_mib": file_mib,
    }
    with tempfile.TemporaryDirectory(prefix="penjing-", ignore_cleanup_errors=True) as folder:
        reads, writes = os.pipe()
        os.set_blocking(reads, False)
        try:
            status = _wait(folder, json.dumps({**asked, "folder": folder, "report": writes}), writes, seconds)
            found = _reported(reads)
        finally:
            os.close(reads)
    walls = tuple(found[0].get("walls", ())) if found else ()
    last = found[-1] if found else {}
    if status is None:
        return Outcome("timeout", f"stopped after {seconds:g} s", walls)
    if last.get("reason") == "passed" and last.get("nonce") != nonce:
        last = {}
    if "reason" in last:
        return Outcome(last["reason"], last.get("detail", ""), walls)
    if status in (-signal.SIGXCPU, -signal.SIGALRM):
        return Outcome("timeout", f"stopped after {seconds:g} s", walls)
    return Outcome("crashed", f"the process ended by itself ({status})", walls)


def each(programs: Sequence[str], runs: Callable[[str], Outcome] = run) -> list[Outcome]:
    """Each program by itself, as many at once as there are processors."""
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        return list(pool.map(runs, programs))


@cache
def walls() -> tuple[str, ...]:
    """What holds programs in on this system, in words."""
    return run("", seconds=20.0).walls


def _wait(folder: str, asked: str, writes: int, seconds: float) -> int | None:
    """The exit status; None: it had to be stopped from outside."""
    least = {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", str(CHILD)],
        cwd=folder,
        env={**least, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writes,),
        start_new_session=True,
    )
    os.close(writes)
    try:
        child.communicate(asked.encode(), timeout=2 * seconds + SLACK_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return child.returncode


def _reported(reads: int) -> list[dict[str, Any]]:
    """Lines of JSON that the process reported."""
    said = b""
    while len(said) < MOST_SAID:
        try:
            more = os.read(reads, MOST_SAID)
        except BlockingIOError:
            break
        if not more:
            break
        said += more
    found = []
    for line in said.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if isinstance(one, dict)]
