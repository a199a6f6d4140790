"""Pairs: texts as transformers reads them, classes and scores learned, saved, answered; bad rows told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from common import as_csv, gap, put, told
from penjing import evaluate, load, tune
from penjing.data.batches import halves, packed
from penjing.engine.scoring import outputs
from penjing.errors import DataError, SpecError
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.records import Part
from penjing.tasks.pair import pair

Tiny = Callable[..., Path]
WORDS = ["card", "parcel", "password", "invoice", "order", "courier", "login", "fee"]


def rows_of(n: int, *, seed: int = 0) -> list[tuple[str, str, str]]:
    """Pairs that share none, one or two of two words, and how many."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(n):
        a, b, c, d = (str(w) for w in draw.choice(WORDS, 4, replace=False))
        shared = i % 3
        second = (c, d) if shared == 0 else (a, d) if shared == 1 else (b, a)
        made.append((f"my {a} and {b} on order {i}", f"the {second[0]} of {second[1]}", str(shared)))
    return made


@pytest.fixture
def pairs_csv(tmp_path: Path) -> Path:
    return put(tmp_path, "pairs.csv", as_csv(rows_of(60), head="sentence1,sentence2,score"))


def part_of(task: Any, folder: Path, csv: Path) -> tuple[Any, Part, list[str]]:
    base = load_base(str(folder))
    rows = task.rows(str(csv))
    names = task.label_names(rows)
    return base, task.part(base, rows, names, 32), names


def model_of(task: Any, base: Any, names: list[str]) -> Model:
    torch.manual_seed(0)
    return Model(base.trunk, task.head(base.width, names, base.pooling, base.pooler), base.way)


# ---- what the model sees


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_both_texts_in_one_sequence_are_what_transformers_makes_of_them(
    family: str, tiny: Tiny, pairs_csv: Path
) -> None:
    task = pair(pooling="last" if family == "gpt2" else "cls", head_dropout=0.0)
    base, part, names = part_of(task, tiny(family), pairs_csv)
    model = model_of(task, base, names)
    found = outputs(model, part.tokens)
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    plain = AutoModel.from_pretrained(tiny(family)).eval()
    for row in (0, 7):
        a, b = part.rows.items[row][:2]  # type: ignore[index]
        given = tokenizer(a, b if family != "gpt2" else f"\n{b}", return_tensors="pt")
        with torch.no_grad():
            states = plain(**given).last_hidden_state[0]
            wanted = model.head(states, torch.tensor([len(states)]))
        assert gap(found[row], wanted[0]) < 1e-4


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_towers_read_each_text_by_itself(family: str, tiny: Tiny, pairs_csv: Path) -> None:
    task = pair(how="two_tower", scores=True, pooling="mean")
    base, part, names = part_of(task, tiny(family), pairs_csv)
    found = task.probabilities(outputs(model_of(task, base, names), part.tokens))
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    plain = AutoModel.from_pretrained(tiny(family)).eval()

    def vector(text: str) -> torch.Tensor:
        with torch.no_grad():
            return plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    for row in (0, 7):
        a, b = part.rows.items[row][:2]  # type: ignore[index]
        assert found[row, 0] == pytest.approx(
            float(F.cosine_similarity(vector(a), vector(b), dim=0)), abs=1e-5
        )


@pytest.mark.parametrize(
    "settings",
    [{}, {"how": "two_tower"}, {"scores": True}, {"how": "two_tower", "scores": True, "ranking": False}],
)
def test_halves_of_a_batch_sum_to_the_whole(settings: dict[str, Any], tiny: Tiny, pairs_csv: Path) -> None:
    task = pair(head_dropout=0.0, **settings)
    base, part, names = part_of(task, tiny("bert"), pairs_csv)
    model = model_of(task, base, names).eval()
    whole = packed(part, np.arange(7))
    both = halves(whole)
    assert both is not None
    with torch.no_grad():
        wanted = task.loss(model, whole).mean
        found = sum(task.loss(model, half).mean * half.n_targets for half in both) / whole.n_targets
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_ranking_compares_all_rows_of_a_step(tiny: Tiny, pairs_csv: Path) -> None:
    assert pair(how="two_tower", scores=True).joint
    assert not pair(how="two_tower", scores=True, ranking=False).joint
    assert not pair(scores=True).joint


def test_swapped_rows_are_learned_beside_the_others(pairs_csv: Path) -> None:
    task = pair(swap=True)
    rows = task.rows(str(pairs_csv))
    assert task.draw is not None
    train, valid, notes = task.draw(rows, None, ["0", "1", "2"], 0.2, 0)
    n = len(train) // 2
    assert len(valid) + n == 60
    assert train.items is not None
    assert [item[:2] for item in train.items[n:]] == [(b, a) for a, b, *_ in train.items[:n]]
    assert train.labels[n:] == train.labels[:n]
    assert "the other way round" in notes[-1]


# ---- scores


def test_the_scale_of_scores_is_taken_from_the_train_rows_and_kept(pairs_csv: Path) -> None:
    task = pair(scores=True)
    rows = task.rows(str(pairs_csv))
    assert task.measure is not None
    measured = task.measure(rows, ["score"])
    assert measured.settled == {"scale": [0.0, 2.0]}
    again = pair(scores=True, **measured.settled)
    assert again.probabilities(torch.tensor([[0.0], [0.5], [1.0]])).tolist() == [[0.0], [1.0], [2.0]]
    declared = pair(scores=True, low=-1, high=3)
    assert declared.probabilities(torch.tensor([0.5])).tolist() == [[1.0]]


def test_cosines_are_put_on_the_line_of_the_validation_rows() -> None:
    task = pair(how="two_tower", scores=True)
    cosines = np.array([[0.1], [0.5], [0.9]])
    chosen = task.tune(cosines, 3 * cosines + 1)
    assert chosen == pytest.approx({"slope": 3, "shift": 1})
    assert task.answers(cosines, ["score"], chosen)[1] == pytest.approx({"score": 2.5})
    assert task.tune(np.ones((3, 1)), cosines) == pytest.approx({"slope": 0, "shift": 0.5})
    assert task.tune(cosines, 1 - cosines) == pytest.approx({"slope": 0, "shift": 0.5})  # never falling
    assert pair(scores=True).tune(cosines, cosines) == {}


# ---- bad rows


def test_labels_that_look_like_scores_are_told(tmp_path: Path) -> None:
    rows = [(f"{a} {i}", b, str(i / 10)) for i, (a, b, _) in enumerate(rows_of(30))]
    csv = put(tmp_path, "p.csv", as_csv(rows, head="sentence1,sentence2,score"))
    task = pair()
    with pytest.raises(DataError) as error:
        task.label_names(task.rows(str(csv)))
    told(error, "Classes were wanted", "30 different numbers", "scores: true", "label:")


def test_one_class_one_score_and_unknown_labels_are_told(tmp_path: Path) -> None:
    rows = [(a, b, "1") for a, b, _ in rows_of(6)]
    csv = put(tmp_path, "p.csv", as_csv(rows, head="sentence1,sentence2,label"))
    task, scores = pair(), pair(scores=True)
    with pytest.raises(DataError, match=r"two classes were wanted.*hold only `1`"):
        task.label_names(task.rows(str(csv)))
    assert scores.measure is not None
    with pytest.raises(DataError, match=r"Scores that differ were wanted; all 6 train rows have 1"):
        scores.measure(scores.rows(str(csv)), ["score"])
    with pytest.raises(
        DataError, match=r"p.csv, line 2: the label `1` is not among the 2 labels of training"
    ):
        task.encode(task.rows(str(csv)), ["no", "yes"])


def test_a_score_outside_the_declared_range_is_told(pairs_csv: Path) -> None:
    task = pair(scores=True, low=0, high=1)
    with pytest.raises(DataError, match=r"pairs.csv, line 4: a number of at least 0 and at most 1.*it is 2"):
        task.encode(task.rows(str(pairs_csv)), ["score"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low": 0.0}, "`pair.low` is 0.0; it belongs to scores"),
        ({"scores": True, "labels": ["a"]}, "`pair.labels` is given; it belongs to classes"),
        ({"scores": True, "low": 2.0, "high": 1.0}, "`pair.low` must be below `pair.high`"),
        ({"scores": True, "scale": [1.0, 1.0]}, "`pair.scale` must be two different numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        pair(**settings)
    with pytest.raises(SpecError, match=r"`data.delimiter` is '\|'"):
        pair().rows("pairs.csv", delimiter="|")


# ---- whole runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"how": "two_tower"}, {"scores": True, "swap": True}, {"how": "two_tower", "scores": True}],
)
def test_a_run_learns_is_saved_and_answers_pairs(
    settings: dict[str, Any], small: dict[str, Any], pairs_csv: Path, tmp_path: Path
) -> None:
    small["data"] = {"train": str(pairs_csv), "test": str(pairs_csv)}
    run = tune(**small, task={"pair": settings})
    after = run.result["after"]["values"]
    bundle = load(run.folder)
    assert evaluate(bundle, str(pairs_csv))["values"] == pytest.approx(after)
    asked = [("my card", "the card"), {"text_a": "my card", "text_b": "the card"}, "my card\tthe card"]
    answers = bundle.predict(asked)
    for answer in answers[1:]:  # one pair, written three ways; its place in the batch may turn the last bits
        assert answer.keys() == answers[0].keys()
        for key, value in answer.items():
            assert value == pytest.approx(answers[0][key], abs=1e-6)
    assert set(answers[0]) == ({"score"} if "scores" in settings else {"label", "confidence", "scores"})
    assert "report.html" in [p.name for p in run.folder.iterdir()]
    whole = bundle.answer(bundle.task.rows(str(pairs_csv)))
    assert whole == bundle.answer(bundle.task.rows(str(pairs_csv), labelled=False))
    assert run.result["difference"]["name"] == ("spearman" if "scores" in settings else "accuracy")
