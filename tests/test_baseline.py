"""The cheap baseline is cheap, and not a straw man."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from penjing import baseline
from penjing.baseline import fit_baseline, fit_classes, is_unspaced, plan_baseline
from penjing.errors import DataError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ENGLISH = ["my card is lost", "the card was stolen", "where is my parcel", "the parcel is late"] * 5
CHINESE = ["我的银行卡丢了", "卡被偷了怎么办", "我的包裹到哪里了", "快递包裹还没送到"] * 5
TARGETS = np.array([0, 0, 1, 1] * 5)


@pytest.mark.parametrize(
    ("texts", "asked"),
    [(ENGLISH, ["card gone", "parcel please"]), (CHINESE, ["银行卡不见了", "查一下包裹"])],
)
def test_words_seen_in_training_decide(texts: list[str], asked: list[str]) -> None:
    p = fit_baseline(texts, TARGETS, 2, multi_label=False, seed=0)(asked)
    assert p.shape == (2, 2)
    assert p.argmax(1).tolist() == [0, 1]
    assert p.sum(1) == pytest.approx(1.0)


def test_multi_label_probabilities_stand_each_on_their_own() -> None:
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]] * 5, dtype=bool)
    p = fit_baseline(ENGLISH, targets, 2, multi_label=True, seed=0)(
        ["my card and my parcel", "card", "hello"]
    )
    assert (p[0] > 0.4).all()
    assert p[1, 0] > 0.5 > p[1, 1]


def test_a_class_without_train_rows_gets_zero_and_a_label_on_every_row_gets_one() -> None:
    p = fit_baseline(ENGLISH, TARGETS, 3, multi_label=False, seed=0)(["card"])
    assert p[0, 2] == 0
    assert p[0].sum() == pytest.approx(1.0)
    targets = np.stack([TARGETS == 0, np.ones(20, bool), np.zeros(20, bool)], axis=1)
    p = fit_baseline(ENGLISH, targets, 3, multi_label=True, seed=0)(["card"])
    assert p[0, 1:].tolist() == [1.0, 0.0]


def test_one_class_alone_is_certain() -> None:
    p = fit_baseline(["a b", "c d"], np.zeros(2, int), 1, multi_label=False, seed=0)(["x", ""])
    assert p.tolist() == [[1.0], [1.0]]


def test_no_texts_give_no_rows() -> None:
    assert fit_baseline(ENGLISH, TARGETS, 2, multi_label=False, seed=0)([]).shape == (0, 2)


@pytest.mark.parametrize("texts", [["", ""], ["!!!", "???"], ["😀", "😢"]])
def test_texts_without_a_word_are_no_error(texts: list[str]) -> None:
    p = fit_baseline(texts, np.array([0, 1]), 2, multi_label=False, seed=0)(["😀", "", "word"])
    assert np.isfinite(p).all()
    assert p.sum(1) == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_probabilities() -> None:
    first, again = (
        fit_baseline(ENGLISH, TARGETS, 2, multi_label=False, seed=3)(["late card"]) for _ in range(2)
    )
    assert (first == again).all()


def test_the_same_seed_gives_the_same_weights_to_many_classes() -> None:
    draw = np.random.default_rng(0)
    features, truth = csr_matrix(draw.random((400, 300))), np.eye(40, dtype=bool)[draw.integers(40, size=400)]
    first = fit_classes(features, truth, 0)
    for _ in range(3):
        for found, wanted in zip(fit_classes(features, truth, 0), first, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_features_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "MOST_FEATURES", 7)
    _, matrix = baseline.fit_features(ENGLISH, plan_baseline(ENGLISH, 2))
    assert matrix.shape == (20, 14)  # 7 of words, 7 of characters


def test_more_text_than_the_budget_allows_means_fewer_kinds_then_fewer_rows_and_is_said() -> None:
    rows = ["word " * 20] * 1000
    rich, words, few = (plan_baseline(rows, n) for n in (2, 3_000, 30_000))
    assert [kind for kind, _, _ in rich.kinds] == ["word", "char_wb"]
    assert (rich.n_rows, rich.notes) == (1000, ())
    assert [kind for kind, _, _ in words.kinds] == ["word"]
    assert words.n_rows == 1000
    assert "words and pairs of them only" in words.notes[0]
    assert few.n_rows < 1000
    assert f"{few.n_rows:,} of 1,000 train rows" in few.notes[1]


def test_a_smaller_budget_is_still_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "BUDGET_S", 1e-4)
    p = fit_baseline(ENGLISH, TARGETS, 2, multi_label=False, seed=0)(["card", "parcel"])
    assert plan_baseline(ENGLISH, 2).n_rows < 20
    assert p.shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("我买了iPhone手机很好", True),
        ("これはペンです", True),
        ("my 手 is cold and wet", False),
        ("", False),
        ("12 !", False),
    ],
)
def test_scripts_without_spaces_are_known(text: str, wanted: bool) -> None:
    assert is_unspaced([text]) is wanted


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(20,\).*it got \(3,\)"):
        fit_baseline(ENGLISH, TARGETS[:3], 2, multi_label=False, seed=0)
    with pytest.raises(DataError, match="at least one train row"):
        fit_baseline([], np.zeros(0, int), 2, multi_label=False, seed=0)


def banking77() -> tuple[list[str], list[str], list[str], list[str]]:
    def columns(text: str) -> tuple[list[str], list[str]]:
        rows = list(csv.DictReader(io.StringIO(text)))
        return [row["text"] for row in rows], [row["category"] for row in rows]

    folder = SHARED / "banking77"
    train = gzip.decompress((folder / "train.csv.gz").read_bytes()).decode()
    return *columns(train), *columns((folder / "test.csv").read_text(encoding="utf-8"))


def clinc150() -> tuple[list[str], list[str], list[str], list[str]]:
    data = json.loads(gzip.decompress((SHARED / "clinc150" / "data_full.json.gz").read_bytes()))
    return *map(list, zip(*data["train"], strict=True)), *map(list, zip(*data["test"], strict=True))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize(
    ("read", "floor"), [(banking77, 0.912), pytest.param(clinc150, 0.92, marks=pytest.mark.long)]
)
def test_it_reaches_a_linear_svm_within_a_minute_of_one_core(read, floor: float) -> None:
    train, given, test, truth = read()
    code = {name: i for i, name in enumerate(sorted(set(given)))}
    start = time.process_time()
    p = fit_baseline(train, np.array([code[name] for name in given]), len(code), multi_label=False, seed=0)(
        test
    )
    assert time.process_time() - start < 60
    assert (p.argmax(1) == np.array([code[name] for name in truth])).mean() > floor


def test_what_is_left_out_goes_with_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit_baseline(ENGLISH, TARGETS, 2, multi_label=False, seed=0).notes == ()
    monkeypatch.setattr(baseline, "BUDGET_S", 1e-9)
    notes = fit_baseline(ENGLISH, TARGETS, 2, multi_label=False, seed=0).notes
    assert notes == plan_baseline(ENGLISH, 2).notes
    assert len(notes) == 2
