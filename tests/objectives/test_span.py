"""Span corruption: what is hidden, what is asked for, and that both make up the text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common import told
from penjing import plugin
from penjing.data.batches import packed
from penjing.data.feed import Document, feed_of, pieces_of
from penjing.errors import NotSupported, SpecError
from penjing.models.load import load
from penjing.models.model import Model
from penjing.objectives.span import STILL, hidden_of, lengths_of, most_spans, raw_length, taken_apart

Tiny = Callable[..., Path]
LINE = "my card was charged twice "
SENTINELS = np.arange(999, 899, -1)


def spliced(source: list[int], answer: list[int]) -> list[int]:
    """The text again: each sentinel of the source gives way to what follows it in the answer."""
    spans: dict[int, list[int]] = {}
    for token in answer:
        if token in SENTINELS:
            last = spans.setdefault(token, [])
        else:
            last.append(token)
    return [own for token in source for own in (spans[token] if token in SENTINELS else [token])]


@pytest.mark.parametrize(("share", "mean"), [(0.15, 3.0), (0.5, 1.0), (0.3, 10.0)])
def test_source_and_answer_make_up_the_text(share: float, mean: float) -> None:
    lengths = np.array([2, 60, 3, 7, 120, 1, 33])
    ids = np.random.default_rng(0).integers(0, 800, int(lengths.sum()))
    hidden = hidden_of(lengths, share, mean, np.random.default_rng(1))
    (source, own), (answer, theirs) = taken_apart(ids, lengths, hidden, SENTINELS)
    rows = zip(
        np.split(source, own.cumsum()[:-1]),
        np.split(answer, theirs.cumsum()[:-1]),
        np.split(ids, lengths.cumsum()[:-1]),
        strict=True,
    )
    for given, said, text in rows:
        assert spliced(given.tolist(), said.tolist()) == text.tolist()
        marks = given[np.isin(given, SENTINELS)]
        assert marks.tolist() == SENTINELS[: len(marks)].tolist()  # the first, the second, …: ids descend
        assert marks.tolist() == said[np.isin(said, SENTINELS)].tolist()
        if len(text) > 1:
            assert (len(given), len(said)) == lengths_of(len(text), share, mean)
            assert given[0] == text[0]
            assert len(marks)


def test_lengths_are_those_of_the_paper() -> None:
    raw = raw_length(512, share=0.15, mean=3.0, ends=1)
    assert raw == 568
    assert [n + 1 for n in lengths_of(raw, 0.15, 3.0)] == [512, 114]
    hidden = hidden_of(np.array([raw]), 0.15, 3.0, np.random.default_rng(0))
    assert (int(hidden.sum()), most_spans(hidden, np.array([raw]))) == (85, 28)


def test_an_answer_longer_than_its_source_keeps_within_the_limit() -> None:
    raw = raw_length(64, share=0.7, mean=2.0, ends=1)
    assert max(lengths_of(raw, 0.7, 2.0)) + 1 <= 64 < max(lengths_of(raw + 1, 0.7, 2.0)) + 1


def test_the_loss_is_that_of_transformers(tiny: Tiny) -> None:
    from transformers import AutoModelForSeq2SeqLM

    base = load(str(tiny("t5")), whole=True)
    task = plugin.build("objectives", plugin.Choice("span", {})).bind(base, [])
    text = "the courier says my parcel is late and the invoice shows a wrong fee"
    stream = feed_of(lambda: [Document(text, "s")] * 3, base.tokenizer, task.feed, key="span")
    part = task.vary(pieces_of(stream, task.feed, 24), np.arange(2), 0)
    model = Model(base.trunk, task.head(), base.way).prepare("fp32").eval()
    batch = packed(part, np.arange(2))
    assert batch.answer is not None
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tiny("t5")).eval()
    rows = zip(
        batch.ids.split(batch.lengths.tolist()),
        batch.answer.ids.split(batch.answer.lengths.tolist()),
        strict=True,
    )
    with torch.no_grad():
        total = sum(len(said) * theirs(input_ids=ids[None], labels=said[None]).loss for ids, said in rows)
        found = task.loss(model, batch).mean
    assert found.item() == pytest.approx(float(total) / batch.n_targets, rel=1e-4)
    eos = base.tokenizer.eos_token_id
    assert (batch.ids[batch.lengths.cumsum(0) - 1] == eos).all()
    assert (batch.answer.ids[batch.answer.lengths.cumsum(0) - 1] == eos).all()


def test_a_run_shows_what_the_model_says(tiny: Tiny) -> None:
    base = load(str(tiny("t5")), whole=True)
    task = plugin.build("objectives", plugin.Choice("span", {})).bind(base, [])
    stream = feed_of(
        lambda: [Document("my card was charged twice " * 9, "s")], base.tokenizer, task.feed, key="show"
    )
    part = pieces_of(stream, task.feed, 24)
    model = Model(base.trunk, task.head(), base.way).prepare("fp32").eval()
    shown = task.show(model, base, part, np.array([0, 2]))
    hidden = task.vary(part, np.array([0]), STILL).answers
    assert len(shown) == 2
    assert shown[0]["wanted"] == base.tokenizer.decode(hidden.ids.tolist())
    assert "<extra_id_0>" in shown[0]["given"]


def test_what_a_base_cannot_do_is_refused(tiny: Tiny) -> None:
    task = plugin.build("objectives", plugin.Choice("span", {}))
    with pytest.raises(NotSupported) as error:
        task.bind(load(str(tiny("gpt2"))), [])
    told(error, "`span` needs an encoder-decoder", "is a decoder", "`--objective causal`")
    with pytest.raises(NotSupported, match=r"needs a tokenizer with sentinels .* has none"):
        task.bind(load(str(tiny("bart")), whole=True), [])


def test_more_spans_than_sentinels_are_refused(tiny: Tiny) -> None:
    base = load(str(tiny("t5")), whole=True)
    task = plugin.build("objectives", plugin.Choice("span", {"mean": 1.0, "share": 0.4})).bind(base, [])
    stream = feed_of(
        lambda: [Document("my card was charged twice " * 30, "s")], base.tokenizer, task.feed, key="few"
    )
    part = pieces_of(stream, task.feed, 96)
    with pytest.raises(SpecError) as error:
        task.vary(part, np.arange(1), 0)
    told(error, "a sentinel of its own", "has 10", "`data.max_length` lower")


@pytest.mark.parametrize(
    ("settings", "said"), [({"share": 1.0}, "`span.share`"), ({"mean": 0.5}, "`span.mean`")]
)
def test_settings_without_sense_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        plugin.build("objectives", plugin.Choice("span", settings))
