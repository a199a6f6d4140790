"""The service as a process: started by its command, asked over the network, stopped and killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from common import told
from penjing.errors import NotSupported, PenjingError, SpecError
from penjing.jobs.serve import Serving, bound, refuse_certificate, register, serve
from penjing.serve.registry import names, point, read_route
from serving import TEXTS, made, registered

Tiny = Callable[..., Path]


def started(root: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "penjing", "serve", "--registry", str(root), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--device", "cpu", *more], text=True, env=environment)
    return process, f"http://127.0.0.1:{port}"


def until_ready(process: subprocess.Popen[str], url: str, seconds: float = 90) -> float:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        assert process.poll() is None, "it died"
        try:
            if httpx2.get(f"{url}/readyz", timeout=2).status_code == 200:
                return time.monotonic() - began
        except httpx2.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError("it was not ready in time")


@pytest.mark.slow
@pytest.mark.long
def test_a_stop_finishes_what_was_taken_and_a_kill_leaves_all_whole(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "serving"
    for seed in (1, 2):
        registered(root, "support", made(tmp_path / str(seed), tiny("bert"), seed=seed))
    process, url = started(root)
    try:
        until_ready(process, url)
        codes: list[Any] = []
        labels: set[str] = set()
        stop = threading.Event()

        def ask() -> None:
            with httpx2.Client(base_url=url, timeout=30) as client:
                while not stop.is_set():
                    reply = client.post("/v1/predict", json={"model": "support", "inputs": TEXTS})
                    codes.append(reply.status_code)
                    labels.add(reply.json()["answers"][0]["label"][1:])

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in (2, 1, 2):  # swapped back and forth under load
            point(root, "support", number)
            time.sleep(1.5)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(codes) == {200}, "a request was dropped"
        assert labels == {"1", "2"}, "the swap was not followed"
        large: list[int] = []
        late = threading.Thread(
            target=lambda: large.append(
                httpx2.post(
                    f"{url}/v1/predict", json={"model": "support", "inputs": TEXTS * 170}, timeout=60
                ).status_code
            )
        )
        late.start()
        while "penjing_queue_tokens 0.0" in httpx2.get(f"{url}/metrics").text and late.is_alive():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        late.join()
        assert large == [200]
        assert process.wait(30) == 0
        for moment in (0.3, 1.1):
            process, url = started(root)
            time.sleep(moment)
            process.kill()
            process.wait()
            assert read_route(root, "support").live == 2
        process, url = started(root)
        until_ready(process, url)
        reply = httpx2.post(f"{url}/v1/predict", json={"model": "support", "inputs": "no"}, timeout=30)
        assert reply.json()["bundle"]["version"] == 2
    finally:
        process.kill()
        process.wait()


def test_bundles_are_named_by_their_folder_or_as_asked(tiny: Tiny, tmp_path: Path) -> None:
    how = Serving(registry=tmp_path / "serving", device="cpu")
    folder = made(tmp_path / "desk", tiny("bert"), seed=1)
    told: list[str] = []
    assert register([str(folder), f"other={folder}"], how, tell=told.append) == ["desk", "other"]
    assert told[0].startswith("desk@1 ")
    assert register([], how) == names(how.registry) == ["desk", "other"]
    with pytest.raises(SpecError, match="Two bundles would be called `desk`"):
        register([str(folder), f"desk={folder}"], how)
    with pytest.raises(NotSupported, match=r"no card\.json"):
        register([str(tmp_path / "nothing")], how)


def test_a_restart_undoes_no_promotion(tiny: Tiny, tmp_path: Path) -> None:
    how, told = Serving(registry=tmp_path / "serving", device="cpu"), list[str]()
    folder = made(tmp_path / "desk", tiny("bert"), seed=1)
    register([str(folder)], how)
    registered(how.registry, "desk", made(tmp_path / "better", tiny("bert"), seed=2))
    point(how.registry, "desk", 2, why="update, round 1")
    register([str(folder)], how, tell=told.append)
    assert read_route(how.registry, "desk").live == 2
    assert told[-1] == "desk@2 is live since; `penjing promote desk@1` lets this one answer again"


def test_a_folder_may_have_a_sign_that_parts_name_and_folder(tiny: Tiny, tmp_path: Path) -> None:
    how = Serving(registry=tmp_path / "serving", device="cpu")
    folder = made(tmp_path / "lr=1" / "desk", tiny("bert"), seed=1)
    assert register([str(folder), f"other={folder}"], how) == ["desk", "other"]


def test_a_model_that_is_refused_ends_the_start_with_its_reason(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "serving"
    version = registered(root, "support", made(tmp_path / "desk", tiny("bert"), seed=1))
    head = version.folder / "head.safetensors"
    whole = head.read_bytes()
    head.unlink()
    head.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(NotSupported, match=r"head\.safetensors"):
        serve([], Serving(registry=root, port=0, device="cpu"))


def test_what_cannot_be_served_makes_no_version_live(tiny: Tiny, tmp_path: Path) -> None:
    root, new = tmp_path / "serving", made(tmp_path / "desk", tiny("bert"), seed=2)
    registered(root, "desk", made(tmp_path / "1", tiny("bert"), seed=1))
    (tmp_path / "keys.json").write_text("no keys")
    for wrong in ({"store": "mysql://host/db"}, {"keys": tmp_path / "keys.json"}, {"audit": tmp_path}):
        with pytest.raises(PenjingError):
            serve([str(new)], Serving(registry=root, port=0, device="cpu", **wrong))
    assert read_route(root, "desk").live == 1


def test_a_port_that_is_taken_is_told_before_anything_is_opened() -> None:
    first = bound("127.0.0.1", 0)
    first[0].listen()
    port = first[0].getsockname()[1]
    assert port > 0
    with pytest.raises(SpecError) as error:
        bound("127.0.0.1", port)
    told(error, f"was to listen on 127.0.0.1, port {port}", "in use", "Give another `--port`")
    both = bound("localhost", 0)
    assert len({one.getsockname()[1] for one in both}) == 1
    for one in [*first, *both]:
        one.close()


def test_a_certificate_that_is_none_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    given = {"certificate": tmp_path / "cert.pem", "private_key": tmp_path / "key.pem"}
    with pytest.raises(SpecError) as missing:
        refuse_certificate(Serving(**given))
    told(missing, "TLS was to be spoken with", "No such file", "Give a PEM file")
    for path in given.values():
        path.write_text("nothing")
    with pytest.raises(SpecError, match="they cannot be taken"):
        refuse_certificate(Serving(**given))


def test_a_service_that_others_can_reach_needs_keys(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="without API keys"):
        Serving(host="0.0.0.0")
    with pytest.raises(SpecError, match="TLS needs a certificate and its private key"):
        Serving(certificate=tmp_path / "a.pem")
    with pytest.raises(SpecError, match="`tokens` must be above 0"):
        Serving(tokens=0)
    with pytest.raises(SpecError, match="`requests` must be 1 a minute or more; it is 0"):
        Serving(requests=0)
    with pytest.raises(SpecError, match="Models to serve were wanted"):
        register([], Serving(registry=tmp_path / "none"))


def test_a_language_model_as_it_was_pretrained_goes_on_from_any_text(tiny: Tiny, tmp_path: Path) -> None:
    folder = made(tmp_path / "lm", tiny("gpt2"), "causal", labels=0, method="full", seed=2)
    version = registered(tmp_path / "serving", "lm", folder)
    golden = json.loads((version.folder / "golden.json").read_text())
    assert golden["inputs"] == "texts"
    assert all(set(one) == {"text"} for one in golden["answers"])
