"""Replicas that come and go with the load: `penjing serve --on ray` under a curve of clients.

    .venv/bin/python bench/scale.py --base minilm --curve 1x10,16x30,1x25 --replicas 1..2
    .venv/bin/python bench/scale.py --smoke

`16x30` is sixteen clients for thirty seconds; each keeps its connection and asks one text at a time. Counted
is every request that was not answered with 200, and how many replicas the service told of, second by second.
Needs Ray (`pip install 'penjing[cluster,serve]'`). Writes bench/out/scale.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BODY = {"model": "m0", "inputs": "my card was charged twice for one order and the parcel is late"}


class Asked(NamedTuple):
    """A request: when it was answered, after how long, and with what (200, or what went wrong)."""

    at: float
    seconds: float
    code: int | str


class Stage(NamedTuple):
    """Clients from one time to another."""

    clients: int
    begins: float
    ends: float


class Heard:
    """What a service says of its replicas: (when, how many are running)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.counts: list[tuple[float, int]] = []
        self.text = ""
        self._lines = process.stderr or []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for text in self._lines:
            self.text += text
            if "replicas: " in text:
                running = re.search(r"(\d+) running", text)
                self.counts.append((time.perf_counter(), int(running[1]) if running else 0))

    def at(self, when: float) -> int:
        """How many were running then."""
        return next((n for at, n in reversed(self.counts) if at <= when), 0)


def main() -> int:
    """The command line; returns the exit status: 1 where a request failed."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, table, write
    from bench.serve import made

    given = _parser().parse_args()
    if given.smoke:
        given.curve, given.up, given.down = [(1, 4.0), (8, 15.0), (1, 12.0)], 1.0, 2.0
    given.out.mkdir(parents=True, exist_ok=True)
    loads = [load_average()]
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        made(Path(folder), given.base, 1)
        with service(Path(folder), given) as (port, heard):
            asked, stages = asyncio.run(climbed(port, given.curve))
    failed = sum(one.code != 200 for one in asked)
    print(f"\n--replicas {given.replicas} --target {given.target:g} --up {given.up:g} --down {given.down:g}")
    table([line(stage, asked, heard) for stage in stages])
    print(f"\n{len(asked):,} requests, {failed} failed")
    found = {"given": {key: str(value) for key, value in vars(given).items()}, "failed": failed}
    seconds = [second(at, stages, asked, heard) for at in range(int(stages[-1].ends - stages[0].begins))]
    write(given.out / "scale.json", {**found, "seconds": seconds, "load": [*loads, load_average()]})
    return 1 if failed else 0


@contextlib.contextmanager
def service(place: Path, given: argparse.Namespace) -> Iterator[tuple[int, Heard]]:
    """The service as a process, with a replica that answers, and what it says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("replicas", "target", "up", "down", "cores")
    scaling = [word for name in names for word in (f"--{name}", str(getattr(given, name)))]
    command = [sys.executable, "-m", "penjing", "serve", "--registry", str(place / "serving"), "--on", "ray"]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--port", str(port), *scaling],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    heard = Heard(process)
    try:
        while not heard.at(time.perf_counter()):
            if process.poll() is not None:
                raise RuntimeError(heard.text)
            time.sleep(0.1)
        yield port, heard
    finally:
        process.terminate()
        process.wait(90)


async def climbed(port: int, curve: list[tuple[int, float]]) -> tuple[list[Asked], list[Stage]]:
    """Ask as the curve says; clients that are too many for the next stage end with their request."""
    asked: list[Asked] = []
    stages: list[Stage] = []
    wanted = 0
    going: list[asyncio.Task[None]] = []

    async def client(number: int) -> None:
        streams = None
        while number < wanted:
            began, code = time.perf_counter(), 0
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", port)
                code = await answered(*streams)
                asked.append(Asked(time.perf_counter(), time.perf_counter() - began, code))
            except Exception as error:
                asked.append(Asked(time.perf_counter(), time.perf_counter() - began, type(error).__name__))
                streams = None
        if streams:
            streams[1].close()

    for clients, seconds in curve:
        begins, before, wanted = time.perf_counter(), wanted, clients
        going += [asyncio.create_task(client(number)) for number in range(before, clients)]
        await asyncio.sleep(seconds)
        stages.append(Stage(clients, begins, time.perf_counter()))
    wanted = 0
    await asyncio.gather(*going)
    return asked, stages


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Ask once on a connection; the status."""
    body = json.dumps(BODY).encode()
    head = "POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
    return int(answer.split(" ")[1])


def line(stage: Stage, asked: list[Asked], heard: Heard) -> dict[str, Any]:
    """What a stage did, for the table."""
    own = [one for one in asked if stage.begins <= one.at < stage.ends]
    times = sorted(one.seconds for one in own if one.code == 200) or [float("nan")]
    spent = stage.ends - stage.begins
    return {
        "clients": stage.clients,
        "seconds": f"{spent:.0f}",
        "replicas": f"{heard.at(stage.begins)} to {heard.at(stage.ends)}",
        "requests/s": f"{len(own) / spent:.1f}",
        "p50 s": f"{times[len(times) // 2]:.3f}",
        "p99 s": f"{times[int(0.99 * len(times))]:.3f}",
        "failed": sum(one.code != 200 for one in own),
    }


def second(at: int, stages: list[Stage], asked: list[Asked], heard: Heard) -> dict[str, Any]:
    """What one second saw, for the file."""
    begins = stages[0].begins + at
    own = [one for one in asked if begins <= one.at < begins + 1]
    clients = next(stage.clients for stage in reversed(stages) if stage.begins <= begins)
    failed = [one.code for one in own if one.code != 200]
    return {"at": at, "clients": clients, "replicas": heard.at(begins), "asked": len(own), "failed": failed}


def _curve(text: str) -> list[tuple[int, float]]:
    return [(int(c), float(s)) for c, s in (stage.split("x") for stage in text.split(","))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--curve", type=_curve, default=_curve("1x10,16x30,1x25"), help="CLIENTSxSECONDS,…")
    parser.add_argument("--replicas", default="1..2")
    parser.add_argument("--target", type=float, default=4.0)
    parser.add_argument("--up", type=float, default=2.0)
    parser.add_argument("--down", type=float, default=5.0)
    parser.add_argument("--cores", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    parser.add_argument("--smoke", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
