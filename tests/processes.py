"""Functions run in several processes that are joined as torchrun would join them."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# Forked from one that has imported torch and transformers, which takes six seconds.
PRELOAD = ["penjing.engine.sharding", "penjing.jobs.keep", "transformers.models.bert.modeling_bert", "peft"]


def together(world: int, function: Callable[..., Any], *args: Any, limit_s: float = 240) -> list[Any]:
    """What `function(*args)` gives in each of `world` processes; the first one's error, where one fails."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(PRELOAD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    going = []
    for rank in range(world):
        ours, theirs = forks.Pipe(duplex=False)
        process = forks.Process(target=_run, args=(rank, world, port, theirs, function, args), daemon=True)
        process.start()
        theirs.close()
        going.append((process, ours))
    try:
        found = [_heard(ours, limit_s) for _, ours in going]
    finally:
        for process, _ in going:
            process.join(5)
            process.kill()
    failed = [text for kind, text in found if kind == "error"]
    own = [
        text for text in failed if "closed by peer" not in text
    ]  # else the others' fate is all that is told
    assert not failed, (own or failed)[0]
    return [value for _, value in found]


def _heard(pipe: Connection, limit_s: float) -> tuple[str, Any]:
    try:
        return pipe.recv() if pipe.poll(limit_s) else ("error", f"nothing heard in {limit_s} s")
    except EOFError:
        return "error", "a process ended without a word"


def _run(
    rank: int, world: int, port: int, pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    try:
        pipe.send(("done", function(*args)))
    except Exception:
        pipe.send(("error", traceback.format_exc()))
