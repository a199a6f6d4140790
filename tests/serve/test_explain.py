"""Which words an answer came from: as asking the text without each of them says."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from penjing.serve.app import create
from penjing.serve.batcher import Batcher
from penjing.serve.explain import explained, without, words_of
from penjing.serve.models import Models
from penjing.serve.service import Service
from serving import anew, made, registered

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def root(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("explained")
    for name, task in (("support", "classify"), ("names", "tag")):
        registered(work / "serving", name, made(work / name, tiny("bert"), task, seed=1))
    return work / "serving"


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    models = Models(root, device="cpu")
    with TestClient(create(Service(models, Batcher(models.lanes), most_inputs=20))) as found:
        yield found


def test_words_are_runs_of_letters_and_single_chinese_characters() -> None:
    text = "Card #12, 退款 again"
    assert [text[a:b] for a, b in words_of(text)] == ["Card", "12", "退", "款", "again"]
    assert [without("a bc d", *span) for span in words_of("a bc d")] == ["bc d", "a d", "a bc "]


@pytest.mark.slow
def test_an_effect_is_what_the_label_loses_without_the_word(client: TestClient, root: Path) -> None:
    text = "my card was charged twice"
    ask = {"model": "support", "inputs": [text, "no"], "explain": True, "scores": True}
    first, single = client.post("/v1/predict", json=ask).json()["answers"]
    bundle, label = anew(root / "support" / "1"), first["label"]
    whole = bundle.predict([text])[0]["scores"][label]
    for word in first["words"]:
        less = bundle.predict([without(text, word["start"], word["end"])])[0]["scores"][label]
        assert word["effect"] == pytest.approx(whole - less, abs=1e-5)
    assert [text[w["start"] : w["end"]] for w in first["words"]] == text.split()
    assert max(abs(word["effect"]) for word in first["words"]) > 1e-4
    assert single["words"] == [], "of one word nothing is left to compare with"


def test_what_is_asked_again_has_the_time_that_is_left() -> None:
    given = []

    async def answered(*asked: Any) -> tuple[list[Any], int, float]:
        given.append(asked[-1])
        return [{"scores": {"x": 0.25}}] * 2, 4, 0.0

    reply: Any = SimpleNamespace(answers=[{"scores": {"x": 1.0}}], opened=None, seconds=3.0)
    service: Any = SimpleNamespace(within_s=10.0, answered=answered)
    caller: Any = None
    for within_s in (None, 5.0, 60.0, 2.0):
        doing = explained(service, reply, ["a b"], [[(0, 1), (2, 3)]], caller=caller, within_s=within_s)
        assert asyncio.run(doing)[1] == 4
    assert given == [7.0, 2.0, 7.0, 0.0]


@pytest.mark.slow
def test_what_cannot_be_explained_is_refused(client: TestClient) -> None:
    reply = client.post("/v1/predict", json={"model": "names", "inputs": "my card", "explain": True})
    assert reply.status_code == 400
    assert "is a bundle of `tag`. Leave `explain` out" in reply.json()["error"]["message"]
    long = client.post("/v1/predict", json={"model": "support", "inputs": "a b " * 11, "explain": True})
    assert long.status_code == 400
    assert "At most 20 words are explained at once; there are 22" in long.json()["error"]["message"]
