"""The service against a FastAPI application around transformers' pipeline, over HTTP on this machine.

    .venv/bin/python bench/serve.py --base minilm --seconds 20
    .venv/bin/python bench/serve.py --adapters 32 --overload 60
    .venv/bin/python bench/serve.py --smoke

Both serve one classifier over the same base, of a random head: the speed is that of a trained one. Clients
keep their connections and ask one text at a time; the systems take turns at each number of clients. What
counts is the most requests a second with the 99th percentile of their times below --bound. `--adapters N`
compares one adapter with N asked in turn; `--overload S` asks with 256 clients for S seconds. Writes
bench/out/serve.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TEXT = "my card was charged twice for one order and the parcel is late i cannot log in again"
WORDS = TEXT.split()


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    given = _parser().parse_args()
    if given.serve_pipeline:
        pipeline_server(given.serve_pipeline, given.port)
        return 0
    from bench.machine import load_average, table, write

    if given.smoke:
        given.seconds, given.clients, given.rounds, given.overload = 1.0, [1, 8], 1, 2.0
        given.adapters = 3
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        place = Path(folder)
        made(place, given.base, max(1, given.adapters))
        found: dict[str, Any] = {
            "load": [load_average()],
            "given": {k: str(v) for k, v in vars(given).items()},
        }
        with penjing(place) as ours, pipeline(place) as theirs:
            found["pipeline"] = race({"penjing": (ours, ["m0"]), "pipeline": (theirs, [""])}, given)
            if given.adapters:
                many = [f"m{i}" for i in range(given.adapters)]
                asyncio.run(load(ours, many, clients=1, seconds=0.5 * len(many)))  # all of them are open
                found["adapters"] = race({"one": (ours, ["m0"]), "many": (ours, many)}, given)
            if given.overload:
                found["overload"] = asyncio.run(load(ours, ["m0"], clients=256, seconds=given.overload))
        found["load"].append(load_average())
    for name in ("pipeline", "adapters"):
        if name in found:
            print(f"\n{name}, most requests/s with p99 below {given.bound} s:")
            table(_best(found[name], given.bound))
    if given.overload:
        print("\noverload:", json.dumps(found["overload"]))
    write(given.out / "serve.json", found)
    return 0


def race(systems: dict[str, tuple[str, list[str]]], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Each system at each number of clients, in turns; one line a measurement."""
    lines = []
    for clients in given.clients:
        for turn in range(given.rounds):
            order = list(systems.items())
            for name, (url, models) in order if turn % 2 == 0 else order[::-1]:
                measured = asyncio.run(load(url, models, clients=clients, seconds=given.seconds))
                lines.append({"system": name, **measured})
    return lines


def _best(lines: Sequence[dict[str, Any]], bound: float) -> list[dict[str, Any]]:
    """Of each system the number of clients with most requests a second within the bound."""
    rows = []
    for name in dict.fromkeys(line["system"] for line in lines):
        each = []
        for clients in dict.fromkeys(line["clients"] for line in lines):
            own = [one for one in lines if one["system"] == name and one["clients"] == clients]
            mid = {key: median(one[key] for one in own) for key in ("rate", "p50", "p99")}
            if mid["p99"] <= bound:
                each.append((mid["rate"], clients, mid))
        if each:
            rate, clients, mid = max(each, key=lambda one: one[0])
            p50, p99 = (f"{mid[key]:.3f}" for key in ("p50", "p99"))
            line = {"requests/s": f"{rate:.1f}", "clients": clients, "p50 s": p50, "p99 s": p99}
            rows.append({"system": name, **line})
        else:
            rows.append({"system": name, "requests/s": "none within the bound"})
    return rows


async def load(url: str, models: Sequence[str], *, clients: int, seconds: float) -> dict[str, Any]:
    """Requests of so many clients for so long: rate of those answered, times, and the codes of all."""
    host, port = url.removeprefix("http://").split(":")
    times: list[float] = []
    codes: Counter[int] = Counter()
    began = time.perf_counter()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        turn = number
        while time.perf_counter() - began < seconds:
            turn += 1
            text = " ".join(WORDS[(turn + i) % len(WORDS)] for i in range(4 + turn % 9))
            body = json.dumps({"model": models[turn % len(models)], "inputs": text}).encode()
            head = f"POST /v1/predict HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            start = time.perf_counter()
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
            code = int(answer.split(" ")[1])
            codes[code] += 1
            if code == 200:
                times.append(time.perf_counter() - start)
            else:
                await asyncio.sleep(0.1)
        writer.close()

    await asyncio.gather(*(client(i) for i in range(clients)))
    spent, times = time.perf_counter() - began, sorted(times) or [float("nan")]
    at = lambda share: times[min(len(times) - 1, int(share * len(times)))]  # noqa: E731
    return {
        "clients": clients,
        "rate": codes[200] / spent,
        "p50": at(0.5),
        "p99": at(0.99),
        "codes": dict(codes),
    }


def made(place: Path, base: str, n: int) -> None:
    """`n` bundles in a registry, and a checkpoint of the first one's shape for transformers."""
    import torch

    from penjing.bundle import save
    from penjing.methods.lora import lora
    from penjing.models.heads import ClassHead
    from penjing.models.load import load as load_base
    from penjing.models.load import twin_of
    from penjing.models.model import Model
    from penjing.serve.opened import Bases, prove
    from penjing.serve.registry import add

    found, bases = load_base(base), Bases()
    names = [f"class {i}" for i in range(20)]
    for i in range(n):
        torch.manual_seed(i)
        method = lora(rank=8)
        own = twin_of(found)
        head = ClassHead(found.width, len(names), pooling="mean", dropout=0.0)
        model = Model(method.apply(own.trunk), head, found.way).eval()
        card = {"task": "classify", "method": "lora", "labels": names, "max_length": 128, "chosen": {}}
        card |= {"precision": "fp32", "scores": {}}
        save(place / f"m{i}", model=model, base=own, saves=method.saves, card=card)
        add(place / "serving", f"m{i}", place / f"m{i}", prove=lambda f: prove(f, bases=bases, device="cpu"))
    from transformers import AutoModelForSequenceClassification

    whole = AutoModelForSequenceClassification.from_pretrained(found.folder, num_labels=len(names))
    whole.save_pretrained(place / "checkpoint")
    found.tokenizer.save_pretrained(place / "checkpoint")


def pipeline_server(folder: str, port: int) -> None:
    """What many write: FastAPI, transformers' pipeline, batches of what came within 5 ms."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline as pipeline_of

    model = pipeline_of("text-classification", model=folder, tokenizer=folder, device="cpu")
    queue, tasks = asyncio.Queue[Any](), []

    async def work() -> None:
        while True:
            batch = [await queue.get()]
            await asyncio.sleep(0.005)
            while not queue.empty() and len(batch) < 32:
                batch.append(queue.get_nowait())
            texts = [text for text, _ in batch]
            for (_, future), one in zip(
                batch, await asyncio.to_thread(model, texts, batch_size=32), strict=True
            ):
                future.set_result(one)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks.append(asyncio.create_task(work()))
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/predict")
    async def predict(body: dict[str, Any]) -> Any:
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((body["inputs"], future))
        return await future

    uvicorn.run(app, port=port, log_level="error")


@contextlib.contextmanager
def penjing(place: Path) -> Iterator[str]:
    """Our service as a process."""
    registry = ["--registry", str(place / "serving"), "--device", "cpu"]
    with _process(["-m", "penjing", "serve", *registry]) as url:
        yield url


@contextlib.contextmanager
def pipeline(place: Path) -> Iterator[str]:
    """The peer as a process."""
    with _process([str(Path(__file__)), "--serve-pipeline", str(place / "checkpoint")]) as url:
        yield url


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    process = subprocess.Popen([sys.executable, *command, "--port", str(port)], env=environment)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise RuntimeError(f"{command[:3]} died")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=lambda s: [int(x) for x in s.split(",")], default=[1, 4, 16, 64])
    parser.add_argument("--bound", type=float, default=0.5, help="seconds of the 99th percentile")
    parser.add_argument("--adapters", type=int, default=0)
    parser.add_argument("--overload", type=float, default=0.0, help="seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--serve-pipeline", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
