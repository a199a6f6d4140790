"""One of several processes that carry a run: `torchrun -m penjing.jobs.member FOLDER`, as launch.py has it.

It tells its news over a line to whoever launched it, and leaves, saved, when that line says so or is cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from typing import Any

from penjing.errors import PenjingError

LEAVE_S = 60.0  # what a process without a launcher gets to save


def main(folder: str) -> None:
    """Carry the run in `folder`; end without an error where it was stopped."""
    with _line() as say:
        try:
            from penjing.jobs.train import member

            member(folder, tell=lambda news: say(vars(news)))
        except KeyboardInterrupt:
            pass
        except PenjingError as error:
            say({"error": str(error), "kind": type(error).__name__})
            raise
        except Exception:
            say({"error": traceback.format_exc(), "kind": ""})
            raise


@contextlib.contextmanager
def _line() -> Any:
    """A function that tells the launcher one thing; its word to stop becomes a SIGTERM of our own."""
    port, _, secret = os.environ["PENJING_LINE"].partition(":")
    line = socket.create_connection(("127.0.0.1", int(port)))
    line.sendall(f"{secret}\n".encode())

    def watch() -> None:
        told = b""
        with contextlib.suppress(OSError):
            told = line.recv(16)
        os.kill(os.getpid(), signal.SIGTERM)  # noted, and heeded at the end of a step
        if not told:
            timer = threading.Timer(LEAVE_S, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()

    def say(word: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            line.sendall(f"{json.dumps(word, ensure_ascii=False)}\n".encode())

    threading.Thread(target=watch, daemon=True).start()
    yield say


if __name__ == "__main__":
    main(sys.argv[1])
