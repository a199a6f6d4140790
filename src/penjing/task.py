"""The contract of a task: what a model is asked to do, supervised or not (design, section 2).

Shape suffixes: S sequences, T tokens, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.records import Batch, LossFunction, Part, Rows, Scores, Tokens

Over = Callable[[Tokens, Callable[[Batch], Tensor]], Tensor]
Each = Callable[[Part, Callable[[Batch], Sequence[Any] | Tensor]], list[Any]]
Fit = Callable[[nn.Module, Over, Tokens, np.ndarray], None]


@dataclass(frozen=True)
class Fitted:
    """A fitted baseline: a function from Rows to what a task predicts, and what it left out, in words."""

    predict: Callable[[Rows], Any]
    notes: tuple[str, ...] = ()

    def __call__(self, rows: Rows) -> Any:
        return self.predict(rows)


@dataclass(frozen=True)
class Feed:
    """How a corpus becomes the sequences of an objective.

    unit: `document`, cut into pieces that fit; `sentence`, the same of sentences; `stream`, pieces of the
    text end to end, whatever document they are of. taken: tokens that the objective puts around each piece.
    ends: the tokenizer's own first and last tokens stand around each document. heads: it is known which
    tokens begin a word. room(max_length) -> tokens of a piece, where that is not `max_length` less `taken`.
    """

    unit: Literal["document", "sentence", "stream"] = "document"
    taken: int = 0
    ends: bool = False
    heads: bool = False
    room: Callable[[int], int] | None = None


@dataclass(frozen=True)
class Teach:
    """How rows of a task are written down, and what people say of its answers made such rows: by this a live
    model goes on learning (chains/update.py). data/taught.py has one of each form.

    asked(rows) -> what each row asks, as fields of a JSON object, and no more. truths(rows) -> what is right
    of each, in the form in which the task answers. row(asked, truth, names) -> the object of a row, as the
    task's `rows` reads it; DataError where the truth has another form. columns(names) -> keys of a spec's
    `data` that such files need. kinds(rows) -> label names of each row: all are to be replayed, and a new one
    widens the head. many: one thing asked may have several truths, a row each.
    """

    asked: Callable[[Rows], list[dict[str, Any]]]
    truths: Callable[[Rows], list[Any]]
    row: Callable[[dict[str, Any], Any, Sequence[str]], dict[str, Any]]
    columns: Callable[[list[str]], dict[str, str]]
    kinds: Callable[[Rows], list[tuple[str, ...]]] = lambda rows: rows.labels
    many: bool = False


def _no_names(rows: Rows) -> list[str]:
    return []


def _near_texts(rows: Rows) -> np.ndarray | None:
    return None


def _no_targets(rows: Rows, names: list[str]) -> np.ndarray:
    return np.zeros(len(rows), dtype=np.int64)


def _no_weights(targets: np.ndarray, names: list[str]) -> np.ndarray | None:
    return None


def _as_doubles(outputs: Tensor) -> np.ndarray:
    return outputs.double().cpu().numpy()


def _nothing_chosen(found: Any, targets: Any) -> dict[str, Any]:
    return {}


def _no_answers(found: Any, names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
    raise NotSupported("Answers were wanted; this task gives none.")


def _label_line(answer: dict[str, Any]) -> str:
    label = answer["label"] if "label" in answer else ", ".join(answer["labels"]) or "(none)"
    return f"{label}\t{answer['confidence']:.3f}"


@dataclass(frozen=True)
class Task:
    """What a model is asked to do: rows to targets to loss to predictions to scores, and which score picks
    the best. Objectives, which need no labels, are the same record.

    What a model predicts of a part (`found`, below) is the task's own affair: (S, C) probabilities where
    sequences get labels; else whatever `infer` gives, which `tune`, `score`, `answers` and `mistakes` take.

    head(width, names, pooling, dense) -> module.
    loss(model, batch) -> Loss with outputs.
    score(found, targets, names, chosen, seed) -> Scores. best: the one of them that picks the best; the
    lowest where `lower`.

    Rows:
    rows(source, labelled=, **reading) -> Rows, where they are more than a text and labels. ask(inputs) ->
    Rows of what `predict` is given, where that may be other than texts.
    groups(rows) -> (n,) group of each row, never on both sides of a split; None: (nearly) equal texts.
    label_names(rows) -> names in order. encode(rows, names) -> targets, first dimension the rows.
    weigh(targets, names) -> weights like the targets' first dimension, or None.
    draw(rows, valid, names, share, seed) -> train rows, validation rows and notes, where not all rows are
    taken or others are added; `valid` are those that the spec names, `share` is what else it would hold out.
    read(texts, max_length) -> Tokens, where texts are not read as they are. part(base, rows, names,
    max_length, labelled=) -> Part, where a row is more than one text's tokens and one target; notes that the
    part's rows have beyond those given are told. learned(part, sequence, names) -> what is learned from a
    sequence as a whole, and from each of its tokens, in words for people; empty where nothing is.

    Batches:
    order(part, batch, seed, epoch) -> rows of each step, where chance and length do not decide. joint: a
    step is one forward pass, as its loss compares rows with each other. vary(part, rows, seed) -> these rows
    of the part as they are learned from this time, where that is drawn anew at each step (masks, noise).
    feed: the task reads a corpus, not rows, and this is how. sees: it reads images, and so does its base.

    Predictions:
    infer(model, each, part) -> found; `each(part, compute)` gives the items of `compute(batch)`, one a
    sequence, of all sequences in order. Without it found = probabilities(outputs), outputs being the head's.
    tune(found, targets) -> what is chosen on validation rows (thresholds). answers(found, names, chosen) ->
    one dict a row; say(answer) -> one line of it. formed(form) -> the same bound task whose answers have a
    form (models/forms.py), where they are texts that the model says. mistakes(found, rows, targets, names,
    chosen) -> the wrong answers, a dict each (where, text, given, predicted, confidence). difference(ours,
    theirs, targets, chosen, their_chosen, seed) -> mean of `best`, ours minus theirs, and its interval over
    the same rows.
    baseline(rows, targets, names, seed) -> function from Rows to found; where it left something out, its
    `notes` say so. untuned: what stands for the base before training: `names`, the label whose name is
    nearest; `own`, the model as it begins; None, nothing. show(model, base, part, index) -> what the model
    makes of some sequences, for people: dicts with `given`, `found` and, where there is one, `wanted`.
    reference(part, names) -> what a watch for drift compares with, beside lengths.

    By rows and base:
    measure(rows, names) -> the same task with what it takes from the train rows, such as the scale of their
    numbers; `settled` holds it as settings, so that the card does.
    bind(base, names, weights) -> the same task for one base, where head and reading depend on it; it can be
    bound again, to a base with other words; `settled`
    are the settings that this decided (they go on the card), `notes` say so. Without `weights` the head has
    shapes only. fit(model, over, tokens, targets): solve for the head on the train rows, before each
    validation; `over(tokens, compute)` gives `compute(batch)` of all rows, in order. learns: without it a run
    makes no steps. prompts(part) ->
    models.generate.Prompts: where answers are words, what the model goes on from, so that a service can say
    them word by word beside others; `infer` then says the same. speaks: it says words, each token the next,
    so every row of the word table learns. whole: the base is loaded with its decoder.
    teach: how it goes on learning from what is said of its answers; without it an update refuses the task.
    outlets(names) -> names of what the head's last layer gives, a list a layer; the labels when None.
    outputs: what `Loss.outputs` are, one of a row or of each of its tokens: scores of `classes` that exclude
    each other, of `marks` that do not, or `numbers`; empty where they are none of these. within: the least
    and the greatest number that an answer says, None for any.
    """

    name: str
    head: Callable[..., nn.Module]
    loss: LossFunction
    score: Callable[..., Scores]
    best: str
    lower: bool = False
    rows: Callable[..., Rows] | None = None
    ask: Callable[[Sequence[Any]], Rows] | None = None
    groups: Callable[[Rows], np.ndarray | None] = _near_texts
    label_names: Callable[[Rows], list[str]] = _no_names
    encode: Callable[[Rows, list[str]], np.ndarray] = _no_targets
    weigh: Callable[[np.ndarray, list[str]], np.ndarray | None] = _no_weights
    draw: Callable[..., tuple[Rows, Rows, tuple[str, ...]]] | None = None
    read: Callable[[Sequence[str], int], Tokens] | None = None
    part: Callable[..., Part] | None = None
    learned: Callable[[Part, int, list[str]], tuple[str, list[str]]] | None = None
    order: Callable[[Part, int, int, int], list[np.ndarray]] | None = None
    joint: bool = False
    vary: Callable[[Part, np.ndarray, int], Part] | None = None
    feed: Feed | None = None
    sees: bool = False
    infer: Callable[[nn.Module, Each, Part], Any] | None = None
    probabilities: Callable[[Tensor], np.ndarray] = _as_doubles
    tune: Callable[[Any, Any], dict[str, Any]] = _nothing_chosen
    answers: Callable[..., list[dict[str, Any]]] = _no_answers
    say: Callable[[dict[str, Any]], str] = _label_line
    formed: Callable[[Any], Task] | None = None
    mistakes: Callable[..., list[dict[str, Any]]] | None = None
    difference: Callable[..., tuple[float, tuple[float, float]]] | None = None
    baseline: Callable[..., Callable[[Rows], Any]] | None = None
    untuned: Literal["names", "own"] | None = None
    reference: Callable[[Part, list[str]], dict[str, Any]] | None = None
    multi_label: bool = False
    measure: Callable[[Rows, list[str]], Task] | None = None
    bind: Callable[..., Task] | None = None
    settled: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    show: Callable[..., list[dict[str, Any]]] | None = None
    fit: Fit | None = None
    learns: bool = True
    prompts: Callable[[Part], Any] | None = None
    speaks: bool = False
    whole: bool = False
    teach: Teach | None = None
    outlets: Callable[[list[str]], list[list[str]]] | None = None
    outputs: Literal["", "classes", "marks", "numbers"] = ""
    within: tuple[float | None, float | None] = (None, None)
