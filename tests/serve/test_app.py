"""The service over HTTP, in process."""

import base64
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from penjing.serve import keyring, shared
from penjing.serve.app import create
from penjing.serve.asked import Answered, Asked
from penjing.serve.audit import Audit
from penjing.serve.batcher import Batcher
from penjing.serve.guard import needed
from penjing.serve.limits import Limits
from penjing.serve.models import Models
from penjing.serve.service import Service
from serving import TEXTS, alone, anew, near

KNOWN: list[tuple[Asked, Answered]] = []


def service_of(root: Path, **how: Any) -> Service:
    models = Models(root, device="cpu")
    return Service(models, Batcher(models.lanes), **how)


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    app = create(service_of(shelf, recorder=lambda asked, answered: KNOWN.append((asked, answered))))
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def posted(client: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


@pytest.mark.slow
def test_answers_are_those_of_predict_and_say_who_gave_them(client: TestClient, shelf: Path) -> None:
    reply = client.post("/v1/predict", json={"model": "support", "inputs": TEXTS, "scores": True})
    found = reply.json()
    assert near(alone(shelf / "support" / "1", TEXTS), found["answers"])
    assert found["bundle"]["name"] == "support"
    assert found["bundle"]["version"] == 1
    assert reply.headers["x-penjing-sha256"] == found["bundle"]["sha256"]
    assert reply.headers["x-penjing-model"] == "support@1"
    short = posted(client, "/v1/predict", model="support@live", inputs=TEXTS[0])
    assert set(short["answers"][0]) == {"label", "confidence"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topics", "names", "search", "pairs", "talk", "notes"])
def test_every_task_is_answered(client: TestClient, shelf: Path, name: str) -> None:
    inputs: list[Any] = [[TEXTS[0], TEXTS[1]]] if name == "pairs" else TEXTS[:2]
    found = posted(client, "/v1/predict", model=name, inputs=inputs, scores=True)["answers"]
    wanted = json.loads(
        json.dumps(alone(shelf / name / "1", inputs), default=lambda x: np.asarray(x).tolist())
    )
    if name in ("talk", "notes"):
        assert [one.get("reply", one.get("text")) for one in found] == [
            one.get("reply", one.get("text")) for one in wanted
        ]
    else:
        assert near(wanted, found)


def test_a_reply_has_the_schema_that_was_asked_for(client: TestClient) -> None:
    schema = {"type": "object", "properties": {"late": {"type": "boolean"}}, "required": ["late"]}
    asked = {"model": "talk", "messages": [{"role": "user", "content": "late?"}], "max_tokens": 60}
    shape = {"type": "json_schema", "json_schema": {"name": "late", "schema": schema}}
    reply = posted(client, "/v1/chat/completions", **asked, response_format=shape)
    assert json.loads(reply["choices"][0]["message"]["content"]) in ({"late": True}, {"late": False})
    strange = {**shape, "json_schema": {"name": "x", "schema": {"not": {}}}}
    fault = posted(client, "/v1/chat/completions", 400, **asked, response_format=strange)["error"]
    assert "`/not` is {}" in fault["message"]
    lacking = posted(client, "/v1/chat/completions", 422, **asked, response_format={"type": "json_schema"})
    assert "`response_format.json_schema` was wanted" in lacking["error"]["message"]


def test_an_unknown_name_is_404_and_never_the_base(client: TestClient) -> None:
    for name in ("suport", "support@9", "support@prod", "bert", "../support"):
        fault = posted(client, "/v1/predict", 404, model=name, inputs="no")["error"]
        assert fault["code"] == "model_not_found"
    assert (
        "Did you mean `support`? GET /v1/models lists"
        in posted(client, "/v1/predict", 404, model="suport", inputs="no")["error"]["message"]
    )


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "support", "inputs": []}, 400, "inputs were wanted"),
        ({"model": "support", "inputs": ["x"] * 1025}, 400, "Send fewer"),
        ({"model": "support", "inputs": [3]}, 422, "item 1 of 1 is int"),
        ({"model": "support", "inputs": "x", "verbose": True}, 422, "verbose"),
        ({"inputs": "x"}, 422, "model"),
        ({"model": "pairs", "inputs": ["no pair"]}, 422, "pairs of texts"),
        ({"model": "support", "inputs": [""]}, 200, ""),
    ],
)
def test_bad_requests_are_told_in_one_shape(client: TestClient, body: Any, status: int, said: str) -> None:
    reply = client.post("/v1/predict", json=body)
    assert reply.status_code == status, reply.text
    if status != 200:
        assert said in reply.json()["error"]["message"]
        assert set(reply.json()["error"]) == {"message", "type", "code", "param"}


def test_what_is_no_json_and_what_is_no_path_are_told_too(client: TestClient) -> None:
    assert client.post("/v1/predict", content=b"{nonsense").status_code == 422
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    reply = client.delete("/v1/predict")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert client.get(f"/v1/models/support@{'9' * 5000}").status_code == 404


def test_no_answer_tells_a_path_of_the_server(client: TestClient, monkeypatch: Any) -> None:
    from penjing.errors import NotSupported
    from penjing.serve.job import Job

    def broken(kind: type[Exception]) -> Any:
        def begin(self: Any) -> None:
            raise kind("The file /home/ada/runs/secret.json was to be read")

        return begin

    for kind, status in ((NotSupported, 400), (RuntimeError, 500)):
        monkeypatch.setattr(Job, "begin", broken(kind))
        reply = client.post("/v1/predict", json={"model": "support", "inputs": "x"})
        assert reply.status_code == status
        assert "ada" not in reply.text
        assert "Traceback" not in reply.text


def test_models_are_listed_with_their_hashes(client: TestClient) -> None:
    found = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert {"support", "topics", "names", "talk"} <= set(found)
    one = client.get("/v1/models/support").json()
    assert one["task"] == "classify"
    assert one["labels"] == ["a0", "b0", "c0"]
    assert one["sha256"] == found["support"]["sha256"]


def test_vectors_come_as_openai_has_them(client: TestClient, shelf: Path) -> None:
    wanted = anew(shelf / "search" / "1").embed(TEXTS)
    plain = posted(client, "/v1/embeddings", model="search", input=TEXTS)
    assert np.allclose([one["embedding"] for one in plain["data"]], wanted, atol=1e-5)
    coded = posted(client, "/v1/embeddings", model="search", input=TEXTS[0], encoding_format="base64")
    vector = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    assert np.allclose(vector, wanted[0], atol=1e-5)
    assert (
        "makes none" in posted(client, "/v1/embeddings", 400, model="support", input="x")["error"]["message"]
    )


@pytest.mark.slow
def test_the_official_client_works_unchanged(client: TestClient, shelf: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import openai

    own = openai.OpenAI(api_key="none", base_url="http://testserver/v1", http_client=client, max_retries=0)
    assert "talk" in [model.id for model in own.models.list()]
    found = own.embeddings.create(model="search", input=TEXTS)
    wanted = anew(shelf / "search" / "1").embed(TEXTS)
    assert np.allclose([one.embedding for one in found.data], wanted, atol=1e-5)
    messages: Any = [{"role": "user", "content": "where is my parcel"}]
    whole = own.chat.completions.create(model="talk", messages=messages, max_tokens=20)
    reply = whole.choices[0].message.content
    assert reply
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 20
    stream = own.chat.completions.create(
        model="talk", messages=messages, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = [*stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == reply
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    text = own.completions.create(model="notes", prompt=TEXTS[2], max_tokens=8)
    assert text.usage is not None
    with pytest.raises(openai.NotFoundError):
        own.chat.completions.create(model="talkk", messages=messages)
    with pytest.raises(openai.BadRequestError, match="bundle of `classify`"):
        own.chat.completions.create(model="support", messages=messages)


def test_what_cannot_be_done_is_refused_and_sampling_repeats(client: TestClient) -> None:
    ask = {"model": "talk", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}
    assert "logprobs" in posted(client, "/v1/chat/completions", 422, **ask, logprobs=True)["error"]["message"]
    assert posted(client, "/v1/chat/completions", 422, **ask, n=2)
    one, two = (
        posted(client, "/v1/chat/completions", **ask, temperature=1.5, seed=3)["choices"] for _ in range(2)
    )
    assert one == two
    other = posted(client, "/v1/chat/completions", **ask, temperature=1.5, seed=4)["choices"]
    assert other != one
    whole = posted(client, "/v1/chat/completions", **ask)["choices"][0]["message"]["content"]
    end = whole[3:5]
    cut = posted(client, "/v1/chat/completions", **ask, stop=end)["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(end)]
    assert cut["finish_reason"] == "stop"


def test_the_open_inference_protocol(client: TestClient) -> None:
    assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
    about = client.get("/v2/models/support").json()
    assert about["versions"] == ["1"]
    tensor = {"name": "input", "shape": [2], "datatype": "BYTES", "data": TEXTS[:2]}
    found = posted(client, "/v2/models/support/versions/1/infer", inputs=[tensor], id="mine")
    assert found["id"] == "mine"
    assert found["outputs"][0]["shape"] == [2]
    answers = [json.loads(one) for one in found["outputs"][0]["data"]]
    wanted = posted(client, "/v1/predict", model="support", inputs=TEXTS[:2], scores=True)["answers"]
    assert near(wanted, answers)
    assert posted(client, "/v2/models/support/infer", 422, inputs=[{**tensor, "shape": [3]}])
    assert posted(client, "/v2/models/support/versions/8/infer", 404, inputs=[tensor])
    assert posted(client, "/v2/models/support/infer", inputs=[tensor], outputs=[{"name": "answers"}])
    other = posted(client, "/v2/models/support/infer", 422, inputs=[tensor], outputs=[{"name": "scores"}])
    assert "`outputs` names 'scores'" in other["error"]["message"]


def test_metrics_count_what_was_done(client: TestClient) -> None:
    posted(client, "/v1/predict", model="support", inputs=TEXTS)
    text = client.get("/metrics").text
    assert 'penjing_requests_total{code="200",method="POST",route="/v1/predict"}' in text
    assert 'penjing_answers_total{model="support",version="1",way="live"}' in text
    for name in (
        "penjing_pass_tokens_bucket",
        "penjing_queue_tokens 0.0",
        "penjing_models_open",
        "penjing_build_info",
    ):
        assert name in text


def test_whoever_records_gets_each_request_before_its_answer_goes_out(client: TestClient) -> None:
    KNOWN.clear()
    reply = client.post("/v1/predict", json={"model": "support", "inputs": ["my card", "no"]})
    asked, answered = KNOWN[-1]
    assert (asked.name, asked.version, asked.verb, asked.way) == ("support", 1, "predict", "live")
    assert asked.inputs == ("my card", "no")
    assert asked.id == reply.json()["id"]
    assert [one["label"] for one in answered.answers] == [one["label"] for one in reply.json()["answers"]]
    assert reply.headers["x-penjing-recorded"] == "true"


def test_the_page_holds_nothing_from_elsewhere(client: TestClient) -> None:
    reply = client.get("/")
    script = client.get("/page.js").text
    assert "http://" not in reply.text + script
    assert "https://" not in reply.text + script
    assert "innerHTML" not in script
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_the_description_is_of_these_routes(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/embeddings", "/v1/chat/completions", "/v2/models/{model}/infer"} <= set(
        document["paths"]
    )
    assert set(document["paths"]["/v1/predict"]["post"]["responses"]) >= {"200", "404", "422", "429", "504"}


@pytest.fixture
def locked(shelf: Path, tmp_path: Path) -> Iterator[tuple[TestClient, dict[str, str], Path]]:
    """A service with keys, one of each scope, small limits and an audit log."""
    path = tmp_path / "keys.json"
    scopes = {"all": ["infer"], "one": ["infer:support"], "metrics": ["metrics"], "admin": ["admin"]}
    made = {name: keyring.make(path, name=name, scopes=own)[0] for name, own in scopes.items()}
    service = service_of(
        shelf,
        shared=shared.alone(Limits(requests=30, tokens=400)),
        audit=Audit(tmp_path / "audit.jsonl"),
        most_inputs=64,
    )
    with TestClient(create(service, keyring=keyring.Keyring(path), body=4096)) as client:
        yield client, made, path


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_every_route_is_closed_without_a_key_but_those_that_say_otherwise(
    locked: tuple[TestClient, dict[str, str], Path],
) -> None:
    client, _, _ = locked
    opened, closed = set(), set()
    for route in client.app.routes:  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}:
            path = (
                route.path.replace("{model}", "support").replace("{version}", "1").replace("{kind}", "canary")
            )
            scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
            assert needed(client.app, scope) is not None, f"{method} {path} does not say who may ask it"
            status = client.request(method, path, json={}).status_code
            (closed if status == 401 else opened).add(route.path)
    assert opened == {"/", "/page.js", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
    assert len(closed) > 15
    assert client.get("/nowhere").status_code == 401, "what there is, is nobody's business"


def test_a_route_that_says_nothing_is_closed_to_all(shelf: Path) -> None:
    from fastapi import APIRouter

    routes = APIRouter()

    @routes.get("/forgotten")
    def forgotten() -> str:
        return "secret"

    client = TestClient(create(service_of(shelf), routers=[routes]))
    assert client.get("/forgotten").status_code == 404


@pytest.mark.slow
def test_scopes_rates_and_sizes_are_kept(locked: tuple[TestClient, dict[str, str], Path]) -> None:
    client, keys, _ = locked
    ask = {"model": "support", "inputs": "no"}
    wrong = [*keys["all"]]
    wrong[-2] = "A" if wrong[-2] != "A" else "B"
    for bad in ("", "pj_k00000000_" + "a" * 43, "".join(wrong), keys["all"] + "x"):
        assert client.post("/v1/predict", json=ask, headers=bearing(bad)).status_code == 401
    assert client.post("/v1/predict", json=ask, headers=bearing(keys["all"])).status_code == 200
    assert client.post("/v1/predict", json=ask, headers=bearing(keys["one"])).status_code == 200
    other = {**ask, "model": "topics"}
    assert client.post("/v1/predict", json=other, headers=bearing(keys["one"])).status_code == 403
    assert client.post("/v1/predict", json=ask, headers=bearing(keys["metrics"])).status_code == 403
    assert [m["name"] for m in client.get("/v1/models", headers=bearing(keys["one"])).json()["data"]] == [
        "support"
    ]
    assert client.post("/admin/models/support/roll_back", headers=bearing(keys["all"])).status_code == 403
    large = {**ask, "inputs": "x" * 5000}
    assert client.post("/v1/predict", json=large, headers=bearing(keys["all"])).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 1000] * 9

    assert client.post("/v1/predict", content=pieces(), headers=bearing(keys["all"])).status_code == 413
    long = {**ask, "inputs": ["word " * 50] * 10}
    replies = [client.post("/v1/predict", json=long, headers=bearing(keys["all"])) for _ in range(3)]
    assert replies[-1].status_code == 429
    assert int(replies[-1].headers["retry-after"]) > 0
    codes = [client.get("/v1/models", headers=bearing(keys["all"])).status_code for _ in range(31)]
    assert codes[-1] == 429


def test_a_key_that_is_revoked_or_over_lets_nobody_in(
    locked: tuple[TestClient, dict[str, str], Path], monkeypatch: Any
) -> None:
    client, keys, path = locked
    number = keys["all"].split("_")[1]
    new, _ = keyring.rotate(path, number, overlap_hours=1)
    for key in (keys["all"], new):
        assert client.get("/v1/models", headers=bearing(key)).status_code == 200
    later = keyring.time.time() + 3700
    monkeypatch.setattr(keyring.time, "time", lambda: later)
    assert client.get("/v1/models", headers=bearing(keys["all"])).status_code == 401
    assert client.get("/v1/models", headers=bearing(new)).status_code == 200
    keyring.revoke(path, new.split("_")[1])
    assert client.get("/v1/models", headers=bearing(new)).status_code == 401
    path.write_text("no keys", encoding="utf-8")
    assert client.get("/v1/models", headers=bearing(keys["one"])).status_code == 401


def test_neither_texts_nor_keys_are_in_the_audit_log(locked: tuple[TestClient, dict[str, str], Path]) -> None:
    client, keys, path = locked
    client.post("/v1/predict", json={"model": "support", "inputs": "ada@x.org"}, headers=bearing(keys["all"]))
    client.get("/v1/models", headers=bearing("wrong"))
    said = (path.parent / "audit.jsonl").read_text()
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events.count("asked") == events.count("refused") == 1
    assert keys["all"].split("_")[1] in said
    assert "ada@x.org" not in said
    assert keys["all"] not in said


def test_no_other_site_may_read_an_answer(client: TestClient) -> None:
    reply = client.get("/v1/models", headers={"origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in reply.headers
