"""Embeddings: a step's contrast against a loop, doubles are no negatives, ranks, saved and answered."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import put
from penjing import evaluate, load, tune
from penjing import spec as specs
from penjing.data.batches import packed
from penjing.data.parts import part_of
from penjing.data.split import folds
from penjing.engine.scoring import predictions
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs.prepare import rows_of
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.tasks.embed import embed

Tiny = Callable[..., Path]
WORDS = ["card", "parcel", "password", "invoice", "order", "courier", "login", "fee"]
ROWS = [
    {"anchor": "my card", "positive": "a card was charged", "negative": ["the card is late", "the fee"]},
    {"anchor": "the parcel", "positive": "a parcel is late", "negative": ["a password"]},
    {"anchor": "my card", "positive": "cards", "negative": []},
    {"anchor": "login", "positive": "a parcel is late", "negative": ["my card"]},
]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return put(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.fixture
def many_file(tmp_path: Path) -> Path:
    rows = [{"anchor": f"my {a} {b}", "positive": f"the {b} of {a}"} for a in WORDS for b in WORDS if a != b]
    rows += [{"anchor": f"my {a} fee", "positive": f"{a} fees"} for a in WORDS[:4]]
    return put(tmp_path, "many.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def made(task: Any, tiny: Tiny, path: Path) -> tuple[Any, Any, Any]:
    base = load_base(str(tiny("bert")))
    part = part_of(task, base, task.rows(str(path)), [], 32)
    return base, part, Model(base.trunk, task.head(base.width, [], "mean", None), base.way).eval()


@pytest.mark.parametrize("both_ways", [True, False])
def test_a_step_is_compared_as_a_loop_over_its_texts_does(
    both_ways: bool, tiny: Tiny, rows_file: Path
) -> None:
    task = embed(temperature=0.1, both_ways=both_ways)
    _, part, model = made(task, tiny, rows_file)
    with torch.no_grad():
        found = float(task.loss(model, packed(part, np.arange(4))).mean)
        texts = [t for row in ROWS for t in (row["anchor"], row["positive"], *row["negative"])]
        lone = part_of(task, load_base(str(tiny("bert"))), _texts(texts), [], 32, labelled=False)
        vectors = dict(zip(texts, predictions(task, model, lone).astype(float), strict=True))
    belongs = {(row["anchor"], row["positive"]) for row in ROWS}

    def near(a: Any, b: Any) -> float:
        return math.exp(float(vectors[a] @ vectors[b]) / 0.1)

    total = 0.0
    others = [t for row in ROWS for t in (row["positive"], *row["negative"])]
    for row in ROWS:
        a, b = row["anchor"], row["positive"]
        rest = sum(near(a, t) for t in others if (a, t) not in belongs and t != a)
        one = -math.log(near(a, b) / (near(a, b) + rest))
        back = sum(near(b, o["anchor"]) for o in ROWS if (o["anchor"], b) not in belongs)
        other = -math.log(near(a, b) / (near(a, b) + back))
        total += (one + other) / 2 if both_ways else one
    assert found == pytest.approx(total / len(ROWS), rel=1e-4)


def _texts(texts: list[Any]) -> Any:
    from penjing.data.parts import rows_of

    return rows_of(texts)


def test_the_first_dimensions_are_learned_too(tiny: Tiny, rows_file: Path) -> None:
    whole, part, model = made(embed(), tiny, rows_file)[0], *made(embed(), tiny, rows_file)[1:]
    assert whole.width == 32
    batch = packed(part, np.arange(4))
    with torch.no_grad():
        alone = float(embed().loss(model, batch).mean)
        both = float(embed(dimensions=[8]).loss(model, batch).mean)
        short = Model(model.trunk, _Short(8), model.way).eval()
        first = float(embed().loss(short, batch).mean)
    assert both == pytest.approx((alone + first) / 2, rel=1e-5)


class _Short(torch.nn.Module):
    """Only the first so many dimensions."""

    def __init__(self, n: int) -> None:
        super().__init__()
        from penjing.models.towers import Vectors

        self.whole, self.n = Vectors("mean"), n

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.whole(states, lengths)[:, : self.n], dim=1)


def test_every_distinct_anchor_is_a_query_over_all_other_texts(tiny: Tiny, rows_file: Path) -> None:
    task = embed()
    _, part, model = made(task, tiny, rows_file)
    found = predictions(task, model, part)
    assert [one.query for one in found] == [row["anchor"] for row in ROWS]
    assert [one["text"] for one in task.answers(found, [], {})] == [one.first for one in found]
    scores = task.score(found, part.targets, [], {}, 0)
    lone = [one for i, one in enumerate(found) if i != 2]  # "my card" once
    assert scores.values == task.score(lone, part.targets, [], {}, 0).values
    assert found[0].right == ("a card was charged", "cards")
    assert max(int(one.ranks.max()) for one in found) <= 7
    assert found[0].first != "my card"  # which is a negative of another row, and the query itself
    assert task.baseline is not None
    cheap = task.baseline(part.rows, part.targets, [], 0)(part.rows)
    assert [one.query for one in cheap] == [one.query for one in found]
    assert cheap[1].ranks.tolist() == [1]


def test_grades_of_judged_pairs_are_gains(tiny: Tiny, tmp_path: Path) -> None:
    pairs = [("my card", "the fee", 3), ("my card", "cards", 1), ("my card", "a password", 0)]
    table = "".join(f"{a},{b},{grade}\n" for a, b, grade in pairs)
    task = embed()
    _, part, model = made(task, tiny, put(tmp_path, "rows.csv", f"query,passage,relevance\n{table}"))
    (one, _) = predictions(task, model, part)
    assert (one.right, one.grades.tolist()) == (("the fee", "cards"), [3, 1])
    ideal = 3 + 1 / math.log2(3)
    gain = sum(grade / math.log2(rank + 1) for grade, rank in zip((3, 1), one.ranks, strict=True))
    values = task.score([one], part.targets, [], {}, 0).values
    assert values["ndcg_10"] == pytest.approx(gain / ideal)


def test_rows_of_one_anchor_are_held_out_together(tmp_path: Path) -> None:
    """Also in folds. Of fewer than ten anchors some rows must part."""
    texts = ["a card", "an unpaid invoice of may", "someone at the door", "why it is late"]
    rows = [{"anchor": f"{a} {a}", "positive": f"{b}, {a}"} for a in (*WORDS, "bank", "key") for b in texts]
    path = put(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    job = specs.read(base="minilm", train=str(path), task="embed", valid_share=0.2)
    data = rows_of(job, embed())
    kept, held = ({item[0] for item in part.items or ()} for part in (data.train, data.valid))
    assert len(data.valid) == 8
    assert not kept & held
    every = embed().rows(str(path))
    for train, valid in folds(every, n_folds=3, seed=0, groups=embed().groups(every)):
        assert not {every.items[i][0] for i in train} & {every.items[i][0] for i in valid}
    assert embed().groups(every.take(np.arange(12))) is None


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match=r"`embed.temperature` must be above 0"):
        embed(temperature=0)
    with pytest.raises(SpecError, match=r"`embed.dimensions` must be whole numbers"):
        embed(dimensions=[])
    with pytest.raises(SpecError, match=r"`embed.dimensions` holds 64; the base's vectors have 32"):
        embed(dimensions=[64]).head(32, [], "mean", None)


def test_an_empty_positive_is_told(tmp_path: Path) -> None:
    path = put(tmp_path, "r.jsonl", '{"anchor": "a", "positive": "b"}\n{"anchor": "c", "positive": ""}\n')
    with pytest.raises(DataError, match=r"line 2: the text in `positive` is empty.*drop_empty"):
        embed().rows(str(path))


@pytest.mark.slow
def test_a_run_learns_is_saved_and_embeds(small: dict[str, Any], many_file: Path) -> None:
    small["data"] = {"train": str(many_file), "test": str(many_file)}
    run = tune(**small, task="embed")
    bundle = load(run.folder)
    assert evaluate(bundle, str(many_file))["values"] == pytest.approx(run.result["after"]["values"])
    vectors = bundle.embed(["my card", "the parcel"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    answers = bundle.predict(["my card", "the parcel"])
    assert np.allclose([one["embedding"] for one in answers], vectors, atol=1e-6)
    assert set(run.result["before"]["values"]) >= {"mrr", "ndcg_10", "recall_10"}
    assert "nDCG@10" in (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_bundle_that_makes_no_vectors_says_so(small: dict[str, Any]) -> None:
    bundle = load(tune(**small).folder)
    with pytest.raises(NotSupported, match=r"Vectors of texts were wanted.*task: embed"):
        bundle.embed(["a"])
