"""Search: exact against sorting everything, the graph at stated recall, re-ranked, written, reopened."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from common import put
from penjing import load, tune
from penjing.bundle import Bundle
from penjing.cli import app
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs import index as indexing
from penjing.jobs.mine import mine
from penjing.jobs.sentences import sentences

WORDS = ["card", "parcel", "password", "invoice", "order", "courier", "login", "fee"]
TEXTS = [f"the {a} and the {b} number {i}" for i, a in enumerate(WORDS) for b in WORDS]


@pytest.fixture(scope="module")
def bundle(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("embed")
    rows = [{"anchor": f"my {a} {b}", "positive": f"the {b} of {a}"} for a in WORDS for b in WORDS if a != b]
    path = put(folder, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    run = tune(
        base=str(tiny("bert")), out=str(folder), task="embed", device="cpu", precision="fp32",
        **{"data.train": str(path), "train.steps": 2, "train.evals": 1},
    )  # fmt: skip
    return load(run.folder)


@pytest.fixture(scope="module")
def made(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> indexing.Index:
    folder = tmp_path_factory.mktemp("index")
    corpus = put(folder, "corpus.txt", "".join(f"{text}\n" for text in TEXTS))
    return indexing.index(bundle, str(corpus), folder / "made", graph=True)


@pytest.mark.slow
def test_exact_search_is_sorting_everything(
    bundle: Bundle, made: indexing.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = bundle.embed(["my card", "the login", "an invoice"])
    wanted = np.argsort(-(queries @ bundle.embed(TEXTS).T), axis=1, kind="stable")[:, :7]
    for block in (10, 65_536):
        monkeypatch.setattr(indexing, "BLOCK", block)
        near, rows = made.find(queries, 7)
        assert np.allclose(near, np.take_along_axis(queries @ bundle.embed(TEXTS).T, wanted, 1), atol=1e-6)
        assert (np.diff(near) <= 0).all()
        assert (rows == wanted).mean() > 0.9  # but for rounding between equals
    assert made.text(int(rows[0, 0])) in TEXTS
    assert len(made.find(queries, 1000)[1][0]) == len(TEXTS)


@pytest.mark.slow
def test_the_graph_finds_nearly_all_that_exact_search_finds(bundle: Bundle, made: indexing.Index) -> None:
    pytest.importorskip("faiss")
    queries = bundle.embed(TEXTS[::5])
    exact, found = made.find(queries, 5)[1], made.find(queries, 5, exact=False)[1]
    recall = np.mean([len({*a} & {*b}) / 5 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert recall > 0.95


@pytest.mark.slow
def test_an_index_is_opened_again_and_refuses_other_models(bundle: Bundle, made: indexing.Index) -> None:
    again = indexing.opened(made.folder)
    assert np.array_equal(again.vectors, made.vectors)
    assert [hit.text for hit in again.search(bundle, ["my card"], 3)[0]] == [
        hit.text for hit in made.search(bundle, ["my card"], 3)[0]
    ]
    other = replace(again, card={**again.card, "made_by": "x"})
    with pytest.raises(DataError, match=r"embedded by the bundle that made the index"):
        other.search(bundle, ["my card"])
    with pytest.raises(SpecError, match=r"`rerank` wants a bundle of task `pair`"):
        again.search(bundle, ["my card"], rerank=bundle)


def test_the_nearest_are_those_of_sorting_everything_and_equals_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = np.random.default_rng(0)
    vectors = chance.integers(-2, 3, (500, 3)).astype(np.float32)  # many products are equal
    queries = chance.integers(-2, 3, (20, 3)).astype(np.float32)
    for block, at_once in ((7, 3), (100, 20), (1000, 256)):
        monkeypatch.setattr(indexing, "BLOCK", block)
        monkeypatch.setattr(indexing, "QUERIES", at_once)
        for k in (1, 9, 500):
            near, rows = indexing.nearest(vectors, queries, k)
            wanted = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
            assert np.array_equal(rows, wanted)
            assert np.array_equal(near, np.take_along_axis(queries @ vectors.T, wanted, 1))
    assert indexing.nearest(vectors, queries[:0], 4)[1].shape == (0, 0)


@pytest.mark.slow
def test_an_open_index_stays_what_it_is_where_another_is_put_in_its_folder(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    first = put(tmp_path, "a.txt", "".join(f"{text}\n" for text in TEXTS))
    other = put(tmp_path, "b.txt", "".join(f"something else {i}\n" for i in range(9)))
    old = indexing.index(bundle, str(first), tmp_path / "i", graph=True)
    query = bundle.embed(["my card"])
    found = old.find(query, 3, exact=False)[1]
    indexing.index(bundle, str(other), tmp_path / "i", graph=True)
    assert [old.text(row) for row in range(3)] == TEXTS[:3]
    assert np.array_equal(old.find(query, 3, exact=False)[1], found)  # the graph is read once
    late = replace(old, folder=tmp_path / "i")
    with pytest.raises(NotSupported, match="has one of 9 texts, not of 64"):
        late.find(query, exact=False)


@pytest.mark.slow
def test_a_pair_bundle_orders_the_nearest_anew(
    bundle: Bundle, made: indexing.Index, small: dict[str, Any], tmp_path: Path
) -> None:
    pairs = zip(WORDS * 3, WORDS[::-1] * 3, strict=True)
    rows = "".join(f"{a},{b},{i % 2}\n" for i, (a, b) in enumerate(pairs))
    path = str(put(tmp_path, "p.csv", f"text_a,text_b,label\n{rows}"))
    small["data"] = {"train": path, "valid": path}
    judge = load(tune(**small, task="pair").folder)
    hits = made.search(bundle, ["my card"], 4, rerank=judge, among=10)[0]
    scores = [a["scores"]["1"] for a in judge.predict([("my card", hit.text) for hit in hits])]
    assert [hit.score for hit in hits] == pytest.approx(scores)
    assert scores == sorted(scores, reverse=True)
    nearest = {hit.row for hit in made.search(bundle, ["my card"], 10)[0]}
    assert {hit.row for hit in hits} <= nearest


def test_what_is_no_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"An index was wanted.*penjing index"):
        indexing.opened(tmp_path)


@pytest.mark.slow
def test_hard_negatives_are_near_and_belong_to_others(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"anchor": f"my {a}", "positive": f"the {a} number {i}"} for i, a in enumerate(WORDS)]
    source = put(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    n = mine(bundle, str(source), tmp_path / "mined.jsonl", negatives=3, margin=1.0)
    found = [json.loads(line) for line in (tmp_path / "mined.jsonl").read_text().splitlines()]
    assert n == sum(len(row["negatives"]) for row in found)
    for row in found:
        assert row["positive"] not in row["negatives"]
        a, b = bundle.embed([row["anchor"]]), bundle.embed([row["positive"]])
        if row["negatives"]:
            assert (bundle.embed(row["negatives"]) @ a[0] <= float(b[0] @ a[0]) + 1e-6).all()
    with pytest.raises(SpecError, match=r"at least 1 negative.*they are 0"):
        mine(bundle, str(source), tmp_path / "m.jsonl", negatives=0)


@pytest.mark.slow
def test_sentence_transformers_opens_it_with_equal_vectors(bundle: Bundle, tmp_path: Path) -> None:
    folder = sentences(bundle, tmp_path / "out")
    named = json.loads((folder / "modules.json").read_text())
    assert [one["path"] for one in named] == ["", "1_Pooling", "2_Normalize"]
    assert np.allclose(load_again(folder, TEXTS[:9]), bundle.embed(TEXTS[:9]), atol=1e-5)


def load_again(folder: Path, texts: list[str]) -> np.ndarray:
    import warnings

    peer = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(peer.SentenceTransformer(str(folder), device="cpu").encode(texts))


@pytest.mark.slow
def test_the_verbs_index_and_find(bundle: Bundle, tmp_path: Path) -> None:
    corpus = put(tmp_path, "corpus.txt", "".join(f"{text}\n" for text in TEXTS))
    runner = CliRunner()
    out = runner.invoke(
        app, ["index", str(bundle.folder), "--data", str(corpus), "--out", str(tmp_path / "i")]
    )
    assert out.exit_code == 0, out.output
    assert "64 texts of 32 numbers each" in out.stdout
    out = runner.invoke(app, ["find", str(tmp_path / "i"), "my card", "--top", "2", "--json"])
    assert out.exit_code == 0, out.output
    assert len(json.loads(out.stdout)[0]["hits"]) == 2
    out = runner.invoke(app, ["find", str(tmp_path / "i"), "my card", "--top", "0"])
    assert "`--top` must be at least 1" in out.output
