"""Classification: labels to targets to loss to answers, against torch's own losses and hand computation."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data.batches import halves, pack
from penjing.errors import DataError, SpecError
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.packing import NATIVE, Way
from penjing.records import Batch, Rows, Tokens
from penjing.tasks.classify import classify

Tiny = Callable[..., Path]
LENGTHS = np.array([3, 9, 5, 1, 12, 6])
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
TARGETS = np.array([0, 1, 2, 2, 1, 2])
NAMES = ["a", "b", "c"]


def rows_of(*labels: str | tuple[str, ...]) -> Rows:
    """Rows of a file t.csv, whose first row stands in line 2."""
    n = len(labels)
    own = [(x,) if isinstance(x, str) else x for x in labels]
    return Rows(
        [f"text {i}" for i in range(n)], own, ("t.csv",), np.zeros(n, dtype=np.int32), np.arange(2, n + 2)
    )


class Said(nn.Module):
    """A model that gives these logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, batch: Batch) -> Tensor:
        return self.logits[list(batch.rows)]


def batch_of(targets: np.ndarray = TARGETS, weights: np.ndarray | None = None) -> Batch:
    return pack(TOKENS, np.arange(len(TARGETS)), targets, weights)


def model_of(folder: Path, n_classes: int = 3, **settings: Any) -> Model:
    base = load(str(folder))
    task = classify(head_dropout=0.0, **settings)
    head = task.head(base.width, [str(i) for i in range(n_classes)], base.pooling, base.pooler)
    return Model(base.trunk, head, base.way)


# ---- names and targets


def test_labels_are_sorted_as_people_sort_numbers_and_words() -> None:
    rows = rows_of("10", "9", "-1", "2.5", "b", "a", "²", "--5", "1")
    assert classify().label_names(rows) == ["-1", "1", "2.5", "9", "10", "--5", "a", "b", "²"]


def test_labels_given_keep_their_order_and_may_be_more_than_the_rows_have() -> None:
    assert classify(labels=["c", "a", "b"]).label_names(rows_of("a", "b")) == ["c", "a", "b"]


def test_targets_are_places_among_the_names() -> None:
    found = classify().encode(rows_of("b", "a", "b"), ["a", "b"])
    assert (found.tolist(), found.dtype) == ([1, 0, 1], np.int64)


def test_targets_of_several_labels_are_marks() -> None:
    found = classify(multi_label=True).encode(rows_of(("a", "c"), (), ("b",)), NAMES)
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_an_unknown_label_that_is_several_known_ones_says_how_to_part_them() -> None:
    with pytest.raises(DataError, match=r"`a, c` is not among.*What `,` parts is.*`delimiter: \",\"`"):
        classify(multi_label=True).encode(rows_of("b", "a, c"), NAMES)


def test_rows_of_one_class_are_refused() -> None:
    with pytest.raises(DataError, match=r"two classes were wanted.*2 rows hold only `a`.*`data.label`"):
        classify().label_names(rows_of("a", "a"))


def test_rows_without_any_label_are_refused() -> None:
    with pytest.raises(DataError, match=r"one label was wanted.*hold none"):
        classify(multi_label=True).label_names(rows_of((), ()))


def test_one_label_that_rows_have_or_not_can_be_learnt() -> None:
    assert classify(multi_label=True).label_names(rows_of("a", ())) == ["a"]


def test_an_unseen_label_is_told_with_its_place_and_the_nearest_name() -> None:
    with pytest.raises(
        DataError, match=r"t.csv, line 3: the label `billng` .*Did you mean `billing`\? 1 of 2 rows"
    ):
        classify().encode(rows_of("late", "billng"), ["billing", "late"])


def test_an_unseen_label_among_several_is_told_too() -> None:
    with pytest.raises(DataError, match=r"t.csv, line 3: the label `x`"):
        classify(multi_label=True).encode(rows_of(("a",), ("b", "x")), NAMES)


def test_a_label_that_the_spec_does_not_name_is_told() -> None:
    with pytest.raises(DataError, match=r"t.csv, line 4: the label `c` .*`classify.labels`"):
        classify(labels=["a", "b"]).label_names(rows_of("a", "b", "c"))


@pytest.mark.parametrize(("own", "n"), [((), "0"), (("a", "b"), "2")])
def test_a_row_without_exactly_one_label_is_told(own: tuple[str, ...], n: str) -> None:
    with pytest.raises(
        DataError, match=rf"t.csv, line 3: one label was wanted; the row has {n}.*multi_label: true"
    ):
        classify().encode(rows_of("a", own), ["a", "b"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"label_smoothing": 1.0}, "`classify.label_smoothing`.*1.0"),
        ({"head_dropout": -0.1}, "`classify.head_dropout`.*-0.1"),
        ({"class_weights": "balanced", "multi_label": True}, "`classify.class_weights`.*ignored"),
        ({"labels": ["a", "b", "a"]}, "`classify.labels` names `a` twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        classify(**settings)


@pytest.mark.parametrize(
    "weights", [{"a": 0.0}, {"a": -1.0}, {"a": float("inf")}, {"a": float("nan")}, {"z": 1.0}]
)
def test_weights_that_cannot_be_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(
        SpecError, match=f"`classify.class_weights` gives `{next(iter(weights))}`.*positive weights"
    ):
        classify(class_weights=weights).weigh(TARGETS, NAMES)


# ---- the loss


def test_the_loss_is_torchs_cross_entropy() -> None:
    logits = torch.randn(6, 3)
    found = classify().loss(Said(logits), batch_of())
    assert torch.allclose(found.mean, F.cross_entropy(logits, torch.from_numpy(TARGETS)))
    assert found.outputs is not None
    assert torch.equal(found.outputs, logits)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_is_torchs(smoothing: float) -> None:
    logits = torch.randn(6, 3)
    wanted = F.cross_entropy(logits, torch.from_numpy(TARGETS), label_smoothing=smoothing)
    assert torch.allclose(classify(label_smoothing=smoothing).loss(Said(logits), batch_of()).mean, wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["balanced", {"a": 0.2, "c": 3.0}])
def test_class_weights_are_those_of_torch(weights: Any, smoothing: float) -> None:
    task, logits = classify(class_weights=weights, label_smoothing=smoothing), torch.randn(6, 3)
    each = {"balanced": [6 / (3 * 1), 6 / (3 * 2), 6 / (3 * 3)]}.get(str(weights), [0.2, 1.0, 3.0])
    wanted = F.cross_entropy(
        logits, torch.from_numpy(TARGETS), weight=torch.tensor(each), label_smoothing=smoothing
    )
    said, own = Said(logits), task.weigh(TARGETS, NAMES)
    assert own is not None
    assert torch.allclose(task.loss(said, batch_of(weights=own)).mean, wanted)


def test_smoothed_and_weighted_losses_of_micro_batches_add_up_to_the_whole() -> None:
    task, logits = classify(class_weights="balanced", label_smoothing=0.2), torch.randn(6, 3)
    batch = batch_of(weights=task.weigh(TARGETS, NAMES))
    parts = halves(batch)
    assert parts is not None
    losses = [task.loss(Said(logits), part).mean * part.n_targets / batch.n_targets for part in parts]
    assert torch.allclose(sum(losses), task.loss(Said(logits), batch).mean)  # type: ignore[arg-type]


def test_rows_that_weigh_by_something_else_keep_their_weights() -> None:
    logits, own = torch.randn(6, 3), np.array([1, 0, 0, 0, 0, 3], dtype=np.float32)
    each = F.cross_entropy(logits, torch.from_numpy(TARGETS), reduction="none", label_smoothing=0.1)
    found = classify(label_smoothing=0.1).loss(Said(logits), batch_of(weights=own)).mean
    assert torch.allclose(found, (each[0] + 3 * each[5]) / 4)


def test_balanced_weights_of_a_class_without_rows_are_finite() -> None:
    own = classify(class_weights="balanced").weigh(TARGETS, [*NAMES, "d"])
    assert own is not None
    assert np.isfinite(own).all()


def test_without_class_weights_rows_weigh_alike() -> None:
    assert classify().weigh(TARGETS, NAMES) is None


def test_several_labels_have_torchs_binary_cross_entropy() -> None:
    logits, marks = torch.randn(6, 4), np.random.default_rng(0).integers(0, 2, (6, 4)).astype(np.float32)
    found = classify(multi_label=True).loss(Said(logits), batch_of(marks))
    assert torch.allclose(found.mean, F.binary_cross_entropy_with_logits(logits, torch.from_numpy(marks)))


def test_smoothing_of_several_labels_moves_each_towards_a_half() -> None:
    logits, marks = torch.randn(6, 4), np.eye(6, 4, dtype=np.float32)
    found = classify(multi_label=True, label_smoothing=0.2).loss(Said(logits), batch_of(marks))
    wanted = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(marks) * 0.8 + 0.1)
    assert torch.allclose(found.mean, wanted)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_halves_of_a_batch_make_up_its_loss(multi_label: bool, weighted: bool) -> None:
    task, said = classify(multi_label=multi_label), Said(torch.randn(6, 3))
    targets = np.eye(3, dtype=np.float32)[TARGETS] if multi_label else TARGETS
    batch = batch_of(targets, np.linspace(0.5, 3, 6, dtype=np.float32) if weighted else None)
    parts = halves(batch)
    assert parts is not None
    wanted = sum(task.loss(said, p).mean.item() * p.n_targets for p in parts) / batch.n_targets
    assert task.loss(said, batch).mean.item() == pytest.approx(wanted, rel=1e-5)


def test_a_task_counts_its_targets() -> None:
    assert batch_of().n_targets == 6
    assert batch_of(np.eye(3, dtype=np.float32)[TARGETS]).n_targets == 6
    own = classify(class_weights={"a": 2.0, "b": 3.0}).weigh(TARGETS, NAMES)
    assert batch_of(weights=own).n_targets == 2 + 3 + 1 + 1 + 3 + 1


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "modernbert"])
def test_packed_equals_padded(family: str, pooling: Any, tiny: Tiny) -> None:
    model, task = model_of(tiny(family), pooling=pooling), classify()
    with torch.no_grad():
        packed = task.loss(model.eval(), batch_of())
        model.trunk.set_attn_implementation(NATIVE)
        model.way = Way(False)
        padded = task.loss(model, batch_of())
    assert float((packed.mean - padded.mean).abs()) < 1e-5
    assert packed.outputs is not None
    assert padded.outputs is not None
    assert torch.allclose(packed.outputs, padded.outputs, atol=1e-5)


# ---- the head


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_pooling_is_what_one_computes_by_hand(pooling: Any, tiny: Tiny) -> None:
    model = model_of(tiny("electra"), pooling=pooling).eval()
    batch = batch_of()
    head: Any = model.head
    with torch.no_grad():
        rows = model.states(batch).split(LENGTHS.tolist())
        vectors = [{"cls": r[0], "last": r[-1], "mean": r.mean(0)}[pooling] for r in rows]
        wanted = torch.stack(vectors) @ head.out.weight.T + head.out.bias
        assert torch.allclose(model(batch), wanted, atol=1e-5)


def test_the_familys_own_pooling_and_dense_layer_are_taken(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    head: Any = classify().head(base.width, NAMES, base.pooling, base.pooler)
    assert (head.pooling, head.dense) == ("cls", base.pooler)


def test_a_pooling_of_ones_own_leaves_the_dense_layer_out(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    head: Any = classify(pooling="mean").head(base.width, NAMES, base.pooling, base.pooler)
    assert (head.pooling, head.dense) == ("mean", None)


@pytest.mark.parametrize("n_classes", [2, 3, 77])
def test_the_loss_begins_near_that_of_guessing(n_classes: int, tiny: Tiny) -> None:
    """The head's first weights are small, so that the odds are near equal."""
    targets = np.arange(6) % n_classes
    for family in ("bert", "gpt2", "llama"):
        with torch.no_grad():
            loss = classify().loss(model_of(tiny(family), n_classes).eval(), batch_of(targets)).mean
        assert float(loss) == pytest.approx(math.log(n_classes), abs=0.15), family


def test_the_loss_of_several_labels_begins_near_that_of_guessing(tiny: Tiny) -> None:
    model = model_of(tiny("bert"), 5)
    with torch.no_grad():
        loss = classify(multi_label=True).loss(model.eval(), batch_of(np.eye(6, 5, dtype=np.float32))).mean
    assert float(loss) == pytest.approx(math.log(2), abs=0.1)


# ---- answers and scores


P = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
Q = np.array([[0.9, 0.2, 0.35], [0.1, 0.3, 0.2]])


def test_probabilities_are_softmax_or_sigmoid() -> None:
    logits = torch.randn(4, 3)
    assert np.allclose(classify().probabilities(logits), torch.softmax(logits, 1).numpy())
    assert np.allclose(classify(multi_label=True).probabilities(logits), torch.sigmoid(logits).numpy())


def test_an_answer_is_the_most_probable_label_with_its_confidence() -> None:
    found = classify().answers(P, NAMES, {})
    assert [(a["label"], a["confidence"]) for a in found] == [("a", 0.7), ("c", 0.6)]
    assert found[1]["scores"] == {"a": 0.1, "b": 0.3, "c": 0.6}


def test_several_labels_are_answered_where_they_reach_their_threshold() -> None:
    found = classify(multi_label=True).answers(Q, NAMES, {"thresholds": [0.5, 0.25, 0.35]})
    assert [a["labels"] for a in found] == [["a", "c"], ["b"]]
    # the least sure of the decisions: c with .35, and b with .3
    assert [a["confidence"] for a in found] == pytest.approx([0.35, 0.3])


def test_without_thresholds_one_half_decides() -> None:
    assert [a["labels"] for a in classify(multi_label=True).answers(Q, NAMES, {})] == [["a"], []]


def test_the_difference_to_another_model_is_that_of_their_scores() -> None:
    task, targets = classify(), np.array([0, 1, 2, 0])
    ours, theirs = np.eye(3)[[0, 1, 2, 1]], np.eye(3)[[0, 0, 2, 1]]
    assert task.difference is not None
    mean, (low, high) = task.difference(ours, theirs, targets, {}, {}, 0)
    assert mean == pytest.approx(0.25)
    assert low <= mean <= high
    marks, chosen = np.array([[1, 0, 1], [0, 1, 0]], np.float32), {"thresholds": [0.5, 0.25, 0.35]}
    several = classify(multi_label=True)
    assert several.difference is not None
    found = several.score(Q, marks, NAMES, chosen, 0).values["macro_f1"]
    found -= several.score(Q, marks, NAMES, {}, 0).values["macro_f1"]
    assert several.difference(Q, Q, marks, chosen, {}, 0)[0] == pytest.approx(found)


def test_thresholds_chosen_are_those_that_scores_use() -> None:
    task = classify(multi_label=True)
    p = np.array([[0.1], [0.2], [0.3], [0.4]])
    targets = np.array([[0.0], [0.0], [1.0], [1.0]])
    chosen = task.tune(p, targets)
    assert 0.2 < chosen["thresholds"][0] <= 0.3
    assert task.score(p, targets, ["a"], chosen, 0).values[task.best] == 1.0
    assert task.score(p, targets, ["a"], {}, 0).values[task.best] == 0.0


def test_nothing_is_chosen_for_single_labels() -> None:
    assert classify().tune(P, np.array([0, 2])) == {}


@pytest.mark.parametrize(("multi_label", "best"), [(False, "accuracy"), (True, "macro_f1")])
def test_the_score_that_picks_the_best_is_among_the_scores(multi_label: bool, best: str) -> None:
    task = classify(multi_label=multi_label)
    targets = np.eye(3)[[0, 2]] if multi_label else np.array([0, 2])
    values = task.score(P, targets, NAMES, {}, 0).values
    assert task.best == best
    assert values[best] == 1.0


def test_a_settled_batch_is_left_as_it_is() -> None:
    batch = batch_of()
    twin = replace(batch, labels=None if batch.labels is None else batch.labels.clone())
    classify(label_smoothing=0.1).loss(Said(torch.randn(6, 3)), batch)
    assert batch.labels is not None
    assert twin.labels is not None
    assert torch.equal(batch.labels, twin.labels)


def test_a_head_of_the_task_is_the_class_head() -> None:
    assert isinstance(classify().head(8, NAMES, "mean", None), ClassHead)
