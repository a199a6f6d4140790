"""Whatever is sent, the answer is one of those that the description promises."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from penjing.jobs.serve import Serving, application

TEXT = st.text(max_size=40)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(width=32) | TEXT
VALUE = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=8
)
NAMES = ["support", "topics", "names", "search", "pairs", "talk", "notes", "support@1", "support@live"]
MODEL = st.sampled_from(NAMES) | TEXT
FIELDS = {
    "/v1/predict": {"inputs": VALUE | st.lists(TEXT, max_size=5), "scores": st.booleans()},
    "/v1/embeddings": {"input": TEXT | st.lists(TEXT, max_size=4) | VALUE, "encoding_format": TEXT},
    "/v1/completions": {
        "prompt": TEXT | VALUE,
        "max_tokens": st.integers(-1, 6),
        "stop": VALUE,
        "seed": VALUE,
    },
    "/v1/chat/completions": {
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT | VALUE}
            ),
            max_size=3,
        ),
        "max_tokens": st.integers(1, 4),
        "temperature": st.floats(-1, 3) | VALUE,
        "top_p": st.floats(0, 1) | VALUE,
        "stream": st.booleans(),
    },
}


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    with TestClient(
        application([], Serving(registry=shelf, device="cpu")), raise_server_exceptions=False
    ) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("path", FIELDS)
@settings(max_examples=120)
@given(data=st.data())
def test_no_input_makes_an_answer_that_is_not_promised(path: str, client: TestClient, data: Any) -> None:
    fields = {name: data.draw(kind) for name, kind in FIELDS[path].items() if data.draw(st.integers(0, 3))}
    body = {"model": data.draw(MODEL), **fields}
    reply = client.post(path, content=json.dumps(body).encode("utf-8", "surrogatepass"))
    promised = client.app.openapi()["paths"][path]["post"]["responses"]  # type: ignore[attr-defined]
    assert reply.status_code < 500, (body, reply.text)
    assert str(reply.status_code) in promised, (body, reply.text)
    if reply.status_code != 200:
        assert set(reply.json()["error"]) == {"message", "type", "code", "param"}


@pytest.mark.slow
@settings(max_examples=60)
@given(
    content=st.binary(max_size=200),
    path=st.sampled_from([*FIELDS, "/v2/models/support/infer", "/v1/nothing"]),
)
def test_no_bytes_make_it_fail(client: TestClient, content: bytes, path: str) -> None:
    reply = client.post(path, content=content)
    assert 400 <= reply.status_code < 500
