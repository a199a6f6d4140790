"""Replicas on a Ray cluster: how many, what they have in common, and that none of them drops a request."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from penjing.cli import app
from penjing.errors import SpecError
from penjing.jobs.replicas import Scaling, serve_on
from penjing.jobs.serve import Serving
from penjing.serve.registry import point
from serving import TEXTS, made, registered

Tiny = Callable[..., Path]
NO_RAY = importlib.util.find_spec("ray") is None


def test_a_number_of_replicas_is_one_or_fewest_and_most() -> None:
    assert Scaling(replicas="2").range == (2, 2)
    assert Scaling(replicas="1..12").range == (1, 12)
    for wrong in ("0..2", "4..1", "some", "1-4", ""):
        with pytest.raises(SpecError, match=re.escape(f"such as 1..4; it is `{wrong}`")):
            Scaling(replicas=wrong)
    with pytest.raises(SpecError, match="`--target` must be above 0; it is 0"):
        Scaling(target=0)
    with pytest.raises(SpecError, match="`--down` is seconds, 0 or more; it is -1"):
        Scaling(down=-1)


def test_replicas_without_a_cluster_are_an_error(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["serve", "--registry", str(tmp_path), "--replicas", "1..2"])
    assert told.exit_code == 1
    assert "`--replicas` is of replicas on a cluster; `--on` names none" in told.output.replace("\n", " ")


def test_a_store_that_one_machine_has_is_refused_on_several(tmp_path: Path) -> None:
    how = Serving(registry=tmp_path, store="traffic.db")
    with pytest.raises(SpecError, match=r"traffic\.db, a file of one machine; .* postgresql://"):
        serve_on([], how, Scaling(), on="ray://head:10001")


def test_a_certificate_that_is_none_is_told_before_the_cluster_is_asked(tmp_path: Path) -> None:
    how = Serving(registry=tmp_path, certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem")
    with pytest.raises(SpecError, match="TLS was to be spoken with"):
        serve_on(["nowhere"], how, Scaling(), on="ray://head:10001")


Served = tuple[subprocess.Popen[str], str, Path, Callable[[], str]]


@pytest.fixture
def served(tiny: Tiny, tmp_path: Path) -> Iterator[Served]:
    """`penjing serve --on ray` with two versions of a model, the first one live, and what it tells."""
    root, told = tmp_path / "serving", tmp_path / "told.txt"
    for seed in (1, 2):
        registered(root, "support", made(tmp_path / str(seed), tiny("bert"), seed=seed))
    point(root, "support", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scaling = ["--replicas", "1..2", "--target", "2", "--up", "1", "--down", "3", "--cores", "0.5"]
    command = [sys.executable, "-m", "penjing", "serve", "--registry", str(root), "--port", str(port)]
    with told.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--on", "ray", *scaling],
            text=True,
            stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            yield process, f"http://127.0.0.1:{port}", root, lambda: told.read_text(encoding="utf-8")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()


def until(holds: Callable[[], Any], what: str, seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(NO_RAY, reason="Ray is not installed (extra `cluster`)")
def test_replicas_come_and_go_with_the_load_and_no_request_fails(served: Served) -> None:
    process, url, root, told = served
    until(lambda: "replicas: 1 running" in told(), "no replica came")
    codes: Counter[Any] = Counter()
    versions: Counter[int] = Counter()
    stop, quiet = threading.Event(), threading.Event()

    def ask(number: int) -> None:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while not stop.is_set() and not (number and quiet.is_set()):
                try:
                    reply = client.post("/v1/predict", json={"model": "support", "inputs": TEXTS})
                    codes[reply.status_code] += 1
                    versions[reply.json()["bundle"]["version"]] += 1
                    assert reply.headers["x-penjing-sha256"] == reply.json()["bundle"]["sha256"]
                except Exception as error:
                    codes[type(error).__name__] += 1

    def counting() -> int:
        return len({*re.findall(r'replica="(\w+)"', httpx2.get(f"{url}/metrics", timeout=30).text)})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: "replicas: 2 running" in told(), "no second one came")
        until(lambda: counting() == 2, "metrics tell of one replica only")
        point(root, "support", 2)
        time.sleep(3)
        before = versions[1]
        time.sleep(2)
        assert versions[1] == before, "a replica did not follow the promotion"
        assert versions[2] > 0
        quiet.set()
        until(lambda: told().endswith("replicas: 1 running\n"), "none went")
    finally:
        quiet.set()
        stop.set()
        for thread in threads:
            thread.join()
    assert set(codes) == {200}, f"requests failed: {codes}"
    late: list[int] = []
    large = {"model": "support", "inputs": TEXTS * 170}
    last = threading.Thread(
        target=lambda: late.append(httpx2.post(f"{url}/v1/predict", json=large, timeout=60).status_code)
    )
    last.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    last.join()
    assert late == [200], "what was taken was not finished"
    assert "stopping: what was taken is finished first" in told()
