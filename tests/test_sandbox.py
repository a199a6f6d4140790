"""Programs in the sandbox: how each ends is told, and none gets out."""

import os
import sys
from pathlib import Path

import pytest

from penjing.sandbox import run, walls

linux = pytest.mark.skipif(sys.platform != "linux", reason="walls of Linux")

ENDS = {
    "passes": ("x = 1\nassert x == 1", "passed", ""),
    "fails": ("def f():\n    return 1\nassert f() == 2, 'no'", "failed", "AssertionError: no (line 3)"),
    "is no program": ("def f(:", "syntax error", "line 1"),
    "leaves early": ("import sys\nsys.exit(0)", "failed", "SystemExit"),
    "leaves by the back door": ("import os\nos._exit(0)", "crashed", "(0)"),
    "takes memory": ("x = bytearray(3 << 30)", "memory", "MemoryError"),
    "forks": ("import os\nwhile True: os.fork()", "failed", "PermissionError"),
    "begins threads": ("import threading\nwhile True: threading.Thread().start()", "failed", "start"),
    "opens a socket": ("import socket\nsocket.socket()", "failed", "PermissionError"),
    "runs a command": ("import subprocess\nsubprocess.run(['ls'])", "failed", "PermissionError"),
    "stops its parent": ("import os\nos.kill(os.getppid(), 9)", "failed", "PermissionError"),
    "fills the disk": ("f = open('a', 'wb')\nwhile f.write(b'0' * 9**6): f.flush()", "failed", "too large"),
    "reads secrets": ("open('/etc/passwd').read()", "failed", "denied"),
    "has its own folder": ("open('a', 'w').write('x')\nassert open('a').read() == 'x'", "passed", ""),
}  # fmt: skip


@linux
@pytest.mark.parametrize("name", [*ENDS])
def test_a_program_that(name: str) -> None:
    program, reason, detail = ENDS[name]
    found = run(program, seconds=5)
    assert found.reason == reason, found
    assert detail in found.detail


@pytest.mark.slow
@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)"])
def test_what_does_not_end_is_stopped(program: str) -> None:
    assert run(program, seconds=0.5).reason == "timeout"


@pytest.mark.parametrize(
    "how",
    [
        "open(PATH, 'w')",
        "import os\nos.open(PATH, os.O_CREAT | os.O_WRONLY)",
        "import pathlib\npathlib.Path(PATH).touch()",
        "import os\nos.symlink('/', PATH)",
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, how: str) -> None:
    path = tmp_path / "escaped"
    found = run(how.replace("PATH", repr(str(path))), seconds=5)
    assert found.reason == "failed"
    assert "PermissionError" in found.detail
    assert not path.exists()


@linux
def test_nothing_is_taken_away_outside(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x", encoding="utf-8")
    assert run(f"import os\nos.remove({str(kept)!r})", seconds=5).reason == "failed"
    assert kept.read_text(encoding="utf-8") == "x"


@linux
@pytest.mark.parametrize(
    ("wall", "program", "detail"),
    [
        ("Landlock", "import sqlite3\nsqlite3.connect(PATH).execute('create table a (b)')",
         "unable to open"),
        ("seccomp", "import signal\nsignal.raise_signal(signal.SIGUSR1)", "not permitted"),
    ],
)  # fmt: skip
def test_the_kernel_holds_what_the_audit_hook_does_not_see(
    tmp_path: Path, wall: str, program: str, detail: str
) -> None:
    if wall not in walls():
        pytest.skip(f"no {wall} here")
    path = tmp_path / "escaped.db"
    found = run(program.replace("PATH", repr(str(path))), seconds=5)
    assert found.reason == "failed", found
    assert detail in found.detail
    assert not path.exists()


def test_what_a_program_reports_itself_is_not_believed() -> None:
    lie = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b'{"reason": "passed", "nonce": "0"}\\n')
    except OSError:
        pass
os._exit(0)
"""
    assert run(lie, seconds=5).reason == "crashed"


def test_the_walls_are_told() -> None:
    found = walls()
    assert found[0].startswith("limits (")
    assert found[-1] == "audit hook"
    assert os.getcwd() not in str(found)
