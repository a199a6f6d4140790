"""A run carried by several processes: torchrun starts them, this one listens, shows and clears up.

Each process (member.py) connects to a port of this machine and tells, a JSON object a line, its news or what
went wrong. A process that dies takes the others with it (torchrun sees to that), and so does this one: its
members notice that the line is cut, save and leave.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from penjing import errors
from penjing.errors import PenjingError, TrainingFailed
from penjing.files import write_text
from penjing.jobs.news import News, Tell
from penjing.jobs.stopping import between_steps
from penjing.places import typed
from penjing.threads import cores, wait_without_spinning

GRACE_S = 60.0  # what members get to save and leave
LOG = "processes.log"  # of a run: what members and torchrun write to their standard error
LOST = ("closed by peer", "Connection reset", "Broken pipe", "recvValue failed", "Timed out waiting")


def launch(folder: Path, processes: int, tell: Tell) -> None:
    """Carry the run in `folder` to its end by so many processes.

    Raises:
        PenjingError: what a process met, or that one of them died; the run can be resumed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run is saved.
    """
    wait_without_spinning()
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server, (folder / LOG).open("wb") as log:
        secret = secrets.token_hex()
        lines: list[socket.socket] = []
        threading.Thread(target=_answer, args=(server, secret, processes, lines, heard), daemon=True).start()
        going = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--monitor-interval=0.2"),
                *(f"--nproc-per-node={processes}", "-m", "penjing.jobs.member", str(folder)),
            ],
            env=_surroundings(processes, server.getsockname()[1], secret),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on once
        )
        try:
            stopped, wrong = _listen(going, lines, heard, tell)
        finally:
            for line in lines:  # members leave where the line is cut
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
                line.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                going.wait(GRACE_S)
            if going.poll() is None:
                going.kill()
                going.wait()
    if stopped:
        raise KeyboardInterrupt
    if going.returncode or wrong:
        raise _error(wrong, processes, folder)


def _surroundings(processes: int, port: int, secret: str) -> dict[str, str]:
    """The environment of torchrun and the members: threads divided, and where to call."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    n = int(asked) if asked.isdigit() else cores()
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, min(n, cores()) // processes)),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PENJING_LINE": f"{port}:{secret}",
    }


def _answer(
    server: socket.socket,
    secret: str,
    processes: int,
    lines: list[socket.socket],
    heard: queue.Queue[dict[str, Any]],
) -> None:
    """Take the members' calls and pass on what each tells."""

    def read(line: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), line.makefile("r", encoding="utf-8") as words:
            if words.readline().strip() == secret:
                lines.append(line)
                for word in words:
                    heard.put(json.loads(word))

    with contextlib.suppress(OSError):
        while True:
            line, _ = server.accept()
            threading.Thread(target=read, args=(line,), daemon=True).start()


def _listen(
    going: subprocess.Popen[bytes],
    lines: list[socket.socket],
    heard: queue.Queue[dict[str, Any]],
    tell: Tell,
) -> tuple[bool, list[dict[str, Any]]]:
    """Show news until all have ended; whether they were asked to stop, and what went wrong."""
    wrong: list[dict[str, Any]] = []
    stopped = False
    with between_steps() as check:
        while True:
            ended = going.poll() is not None
            try:
                word = heard.get(timeout=0.2)
            except queue.Empty:
                if ended:
                    return stopped, wrong
            else:
                if "error" in word:
                    wrong.append(word)
                else:
                    tell(News(**word))
            try:
                check()
            except KeyboardInterrupt:
                if not stopped:
                    for line in lines:
                        with contextlib.suppress(OSError):
                            line.sendall(b"stop\n")
                stopped = True


def _error(wrong: list[dict[str, Any]], processes: int, folder: Path) -> PenjingError:
    """The one error of several: a member's own before what it did to the others."""
    own = [w for w in wrong if not any(words in w["error"] for words in LOST)]
    known = [w for w in own if w["kind"]]
    if known:
        kind: type[PenjingError] = getattr(errors, known[0]["kind"], PenjingError)
        return kind(known[0]["error"])
    said = own[0]["error"] if own else "it was killed or ran out of memory"
    text = (
        f"One of {processes} processes ended before its work was done: {said.strip().splitlines()[-1]}. The "
        f"others were stopped; {folder / LOG} has what they wrote. `penjing tune --resume {typed(folder)}` "
        f"goes on from the last saved step."
    )
    with contextlib.suppress(PenjingError):
        write_text(folder / "error.txt", f"{text}\n{own[0]['error'] if own else ''}")
    return TrainingFailed(text)
