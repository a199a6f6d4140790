"""What every objective promises, and what each hides or asks for."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import gap
from penjing import plugin
from penjing.data.batches import halves, packed
from penjing.data.feed import Document, feed_of, pieces_of
from penjing.engine.scoring import each
from penjing.errors import NotSupported, SpecError
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.models.packing import Way
from penjing.records import Part
from penjing.task import Task

Tiny = Callable[..., Path]
SETTINGS: dict[str, Any] = {
    "mixed": {"of": ["masked", "sentence_order"]},
    "span": {"share": 0.3, "mean": 2.0},
}
BASES = {"causal": "gpt2", "span": "t5"}
NAMES = sorted(set(plugin.found("objectives")) - {"masked_image"})
TEXT = "the courier says my parcel is late and the invoice shows a wrong fee on order {} again. "


def documents() -> list[Document]:
    return [Document("".join(TEXT.format(i) for i in range(n, n + 4)), f"s{n % 2}") for n in range(12)]


def made(tiny: Tiny, name: str, family: str = "", **settings: Any) -> tuple[Task, Base, Model, Part]:
    """An objective on a tiny base, without dropout, and pieces of 24 tokens."""
    asked: Task = plugin.build("objectives", plugin.Choice(name, {**SETTINGS.get(name, {}), **settings}))
    base = load(str(tiny(family or BASES.get(name, "bert"))), whole=asked.whole)
    assert asked.bind is not None
    task = asked.bind(base, [])
    assert task.feed is not None
    words = lambda text: [0, *(i + 1 for i, sign in enumerate(text) if sign == " ")]  # noqa: E731
    stream = feed_of(documents, base.tokenizer, task.feed, key=f"{name} {family}", words=words)
    part = pieces_of(stream, task.feed, 24)
    torch.manual_seed(0)
    model = Model(base.trunk, task.head(base.width, [], base.pooling, base.pooler), base.way)
    return task, base, model.prepare("fp32").eval(), part


def shown(task: Task, part: Part, seed: int = 3, n: int = 8) -> Part:
    assert task.vary is not None
    return task.vary(part, np.arange(n), seed)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_function_of_its_seed(tiny: Tiny, name: str) -> None:
    task, _, _, part = made(tiny, name)
    one, same, other = (packed(shown(task, part, seed), np.arange(8)) for seed in (3, 3, 4))
    assert torch.equal(one.ids, same.ids)
    if name not in ("causal", "contrastive"):
        changed = one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
        assert changed or not torch.equal(one.labels, other.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"contrastive"}))
def test_halves_of_a_batch_make_up_its_loss(tiny: Tiny, name: str) -> None:
    task, _, model, part = made(tiny, name)
    batch = packed(shown(task, part), np.arange(8))
    parts = halves(batch)
    assert parts is not None
    with torch.no_grad():
        wanted = sum(float(task.loss(model, p).mean) * p.n_targets for p in parts) / batch.n_targets
        assert float(task.loss(model, batch).mean) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_packed_equals_padded(tiny: Tiny, name: str) -> None:
    task, base, model, part = made(tiny, name)
    batch = packed(shown(task, part), np.arange(8))
    with torch.no_grad():
        found = task.loss(model, batch).mean
        base.trunk.set_attn_implementation("eager")  # type: ignore[operator]
        model.way = Way(False)
        assert gap(task.loss(model, batch).mean, found) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_finite_and_name_the_best(tiny: Tiny, name: str) -> None:
    task, _, model, part = made(tiny, name)
    assert task.infer is not None
    found = task.infer(model, partial(each, model, tokens=64), part)
    scores = task.score(found, part.targets, ["s0", "s1"], {}, 0)
    assert task.lower
    assert all(math.isfinite(value) for value in scores.values.values())
    again = task.infer(model, partial(each, model, tokens=10_000), part)
    assert task.score(again, part.targets, ["s0", "s1"], {}, 0).values[task.best] == pytest.approx(
        scores.values[task.best], rel=1e-4
    )


@pytest.mark.parametrize("family", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_masked_asks_for_what_stood_there_and_never_for_special_tokens(tiny: Tiny, family: str) -> None:
    task, base, _, part = made(tiny, "masked", family, share=0.4)
    batch = packed(shown(task, part), np.arange(8))
    assert batch.labels is not None
    asked = batch.labels != -100
    assert int(asked.sum()) == batch.n_targets
    first = batch.lengths.cumsum(0) - batch.lengths
    assert (batch.ids[first] == base.tokenizer.cls_token_id).all()
    whole = torch.where(asked, batch.labels, batch.ids)
    inside = torch.ones_like(asked)
    inside[first] = inside[batch.lengths.cumsum(0) - 1] = False
    n = int(inside.sum())
    assert torch.equal(whole[inside], torch.from_numpy(part.tokens.ids[:n].astype(np.int64)))
    assert not asked[~inside].any()


@pytest.mark.parametrize("units", ["tokens", "words", "spans"])
def test_masked_leaves_words_that_are_not_known_as_they_are(tiny: Tiny, units: str) -> None:
    task, base, _, part = made(tiny, "masked", units=units, share=0.8)
    ids, unknown = part.tokens.ids.astype(np.int64), base.tokenizer.unk_token_id
    ids[::3] = unknown
    part = replace(part, tokens=replace(part.tokens, ids=ids))
    own = part.tokens.starts[8]
    found = shown(task, part).tokens
    assert found.labels is not None
    whole = np.where(found.labels == -100, found.ids, found.labels)
    inside = np.ones(len(whole), bool)
    inside[[*found.starts[:-1], *(found.starts[1:] - 1)]] = False
    assert np.array_equal(whole[inside], ids[:own])
    asked = found.labels[inside] != -100
    assert not asked[ids[:own] == unknown].any()
    assert asked[ids[:own] != unknown].mean() > 0.6


def test_a_piece_without_a_word_that_is_known_asks_for_nothing(tiny: Tiny) -> None:
    task, base, model, part = made(tiny, "masked")
    nothing = np.full_like(part.tokens.ids, base.tokenizer.unk_token_id)
    part = replace(part, tokens=replace(part.tokens, ids=nothing))
    assert packed(shown(task, part), np.arange(8)).n_targets == 0
    assert task.infer is not None
    found = task.infer(model, partial(each, model, tokens=64), part)
    assert not found.any()


def test_whole_words_are_hidden_whole(tiny: Tiny) -> None:
    task, base, _, part = made(tiny, "masked", units="words", share=0.4)
    shown_part = shown(task, part)
    asked = shown_part.tokens.labels != -100
    pieces = base.tokenizer.convert_ids_to_tokens(part.tokens.ids[: part.tokens.starts[8]].tolist())
    inside = ~np.isin(
        np.arange(len(asked)), [*shown_part.tokens.starts[:-1], *(shown_part.tokens.starts[1:] - 1)]
    )
    own = asked[inside]
    begins = set(part.tokens.starts[:9].tolist())
    for i, piece in enumerate(pieces):
        if piece.startswith("##") and i not in begins:
            assert own[i] == own[i - 1]


def test_causal_asks_each_token_for_the_next_once(tiny: Tiny) -> None:
    task, _, model, part = made(tiny, "causal")
    batch = packed(shown(task, part), np.arange(8))
    stream, labels = part.tokens.ids.astype(np.int64), batch.labels
    assert labels is not None
    n = int(part.tokens.starts[8])
    ends = part.tokens.starts[1:9][part.targets[:8, 2] == 1] - 1
    wanted = torch.from_numpy(stream[1 : n + 1].copy())
    wanted[torch.from_numpy(ends)] = -100
    assert torch.equal(labels, wanted)
    with torch.no_grad():
        states = model.states(batch)
        logits = model.head(states)
        assert float(task.loss(model, batch).mean) == pytest.approx(
            F.cross_entropy(logits, labels).item(), rel=1e-5
        )


def test_causal_across_documents_begins_elsewhere_each_time(tiny: Tiny) -> None:
    task, _, _, part = made(tiny, "causal", across=True)
    stream = part.tokens.ids.astype(np.int64)
    for seed in (3, 4):
        found = shown(task, part, seed)
        for i in range(8):
            ids = found.tokens.ids[found.tokens.starts[i] : found.tokens.starts[i + 1]]
            labels = found.tokens.labels[found.tokens.starts[i] : found.tokens.starts[i + 1]]  # type: ignore[index]
            at = next(
                s
                for s in range(part.tokens.starts[i], len(stream))
                if np.array_equal(stream[s : s + len(ids)], ids)
            )
            assert np.array_equal(labels, stream[at + 1 : at + 1 + len(ids)])
    assert not np.array_equal(shown(task, part, 3).tokens.ids, shown(task, part, 4).tokens.ids)


def test_a_later_token_does_not_change_an_earlier_answer(tiny: Tiny) -> None:
    task, _, model, part = made(tiny, "causal")
    batch = packed(shown(task, part, n=1), np.arange(1))
    with torch.no_grad():
        before = model.head(model.states(batch))
        batch.ids[-1] = batch.ids[0]
        after = model.head(model.states(batch))
    assert torch.equal(before[:-1], after[:-1])
    assert not torch.equal(before[-1], after[-1])


@pytest.mark.parametrize("name", ["sentence_order", "next_sentence"])
def test_half_of_the_pairs_are_wrong(tiny: Tiny, name: str) -> None:
    task, _, _, part = made(tiny, name)
    assert task.vary is not None
    rows = np.resize(np.arange(len(part)), 600)
    targets = task.vary(part, rows, 0).targets
    assert abs(targets.mean() - 0.5) < 0.06


def test_parts_that_change_places_keep_their_tokens(tiny: Tiny) -> None:
    task, base, _, part = made(tiny, "sentence_order")
    found = shown(task, part)
    sep = base.tokenizer.sep_token_id
    for i in range(8):
        ids = found.tokens.ids[found.tokens.starts[i] : found.tokens.starts[i + 1]].tolist()
        at = ids.index(sep)
        first, second = ids[1:at], ids[at + 1 : -1]
        wanted = part.tokens.ids[part.tokens.starts[i] : part.tokens.starts[i + 1]].tolist()
        assert (second + first if found.targets[i] else first + second) == wanted
        types = found.tokens.segments[found.tokens.starts[i] : found.tokens.starts[i + 1]].tolist()  # type: ignore[index]
        assert types == [0] * (at + 1) + [1] * (len(second) + 1)


def test_a_wrong_next_part_is_of_another_document(tiny: Tiny) -> None:
    task, base, _, part = made(tiny, "next_sentence")
    found = shown(task, part, n=12)
    tokens, document = part.tokens, part.targets[:, 1]
    spans = [tokens.starts[np.append(document == n, False)].min() for n in range(12)] + [tokens.starts[-1]]
    for i in np.flatnonzero(found.targets == 1):
        ids = found.tokens.ids[found.tokens.starts[i] : found.tokens.starts[i + 1]].tolist()
        second = ids[ids.index(base.tokenizer.sep_token_id) + 1 : -1]
        others = [n for n in range(12) if n != document[i]]
        assert any(holds(tokens.ids[spans[n] : spans[n + 1]].tolist(), second) for n in others)


def holds(row: list[int], some: list[int]) -> bool:
    return any(row[at : at + len(some)] == some for at in range(len(row)))


def test_two_readings_differ_in_training_and_agree_afterwards(tiny: Tiny) -> None:
    task, _, model, part = made(tiny, "contrastive", repeat=0)
    batch = packed(shown(task, part), np.arange(8))
    found = model.train()(batch)
    assert not torch.allclose(found[0::2], found[1::2])
    found = model.eval()(batch)
    assert torch.allclose(found[0::2], found[1::2], atol=1e-5)


@pytest.mark.parametrize(("spare", "most"), [(50, 0.5), (3, 0.5), (0, 0.0)])
def test_second_readings_say_words_twice_as_far_as_there_is_room(tiny: Tiny, spare: int, most: float) -> None:
    _, base, _, part = made(tiny, "contrastive")
    longest = int(np.diff(part.tokens.starts).max())
    asked: Task = plugin.build("objectives", plugin.Choice("contrastive", {"repeat": most}))
    assert asked.bind is not None
    task = asked.bind(replace(base, limit=longest + 2 + spare), [])
    added = []
    for seed in range(60):
        tokens = shown(task, part, seed, len(part)).tokens
        assert tokens.parts is not None
        ends = np.concatenate([[0], np.cumsum(tokens.parts.reshape(-1))])
        rows = [tokens.ids[a:b].tolist() for a, b in pairwise(ends)]
        for one, other in zip(rows[0::2], rows[1::2], strict=True):
            runs = [[(sign, len(list(run))) for sign, run in groupby(row)] for row in (one, other)]
            assert [sign for sign, _ in runs[0]] == [sign for sign, _ in runs[1]]
            assert all(n <= m <= 2 * n for (_, n), (_, m) in zip(*runs, strict=True))
            added.append((len(other) - len(one), len(one) - 2))
    for n in {n for _, n in added}:
        bound = min(int(most * n), longest + spare - n)
        assert {more for more, own in added if own == n} == set(range(bound + 1))


def test_equal_sentences_cost_the_logarithm_of_their_number() -> None:
    from penjing.objectives.contrastive import _each

    same = F.normalize(torch.ones(7, 5), dim=1)
    assert torch.allclose(_each(same, same, 0.05), torch.full((7,), math.log(7)))
    apart = torch.eye(7)
    assert float(_each(apart, apart, 0.05).max()) < 1e-6


def test_mixed_gives_each_objective_its_share_of_the_steps(tiny: Tiny) -> None:
    task, _, model, part = made(tiny, "mixed", of=["masked", "sentence_order"], shares=[3, 1])
    kinds = [shown(task, part, seed).kind for seed in range(400)]
    assert abs(np.mean(kinds) - 0.25) < 0.07
    for seed in (kinds.index(0), kinds.index(1)):
        found = task.loss(model, packed(shown(task, part, seed), np.arange(8)))
        assert found.parts == {("masked", "sentence_order")[kinds[seed]]: pytest.approx(found.mean.item())}


def test_two_objectives_of_one_name_keep_their_scores_apart(tiny: Tiny) -> None:
    task, _, model, part = made(tiny, "mixed", of=["masked", {"masked": {"share": 0.5}}], shares=[3, 1])
    assert task.infer is not None
    found = task.infer(model, partial(each, model, tokens=64), part)
    values = task.score(found, part.targets, ["s0", "s1"], {}, 0).values
    one, other = values["masked_loss"], values["masked_2_loss"]
    assert one != other
    assert values["loss"] == pytest.approx(0.75 * one + 0.25 * other)


def test_what_a_base_cannot_do_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match="needs a tokenizer with a mask token"):
        made(tiny, "masked", "gpt2")
    with pytest.raises(NotSupported, match=r"`causal` needs a base whose tokens see only those before them"):
        made(tiny, "causal", "bert")
    with pytest.raises(NotSupported, match="sets two texts apart"):
        made(tiny, "sentence_order", "gpt2")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("masked", {"share": 1.0}, "`masked.share` must be above 0 and below 1; it is 1.0"),
        ("contrastive", {"temperature": 0.0}, "`contrastive.temperature` must be above 0"),
        ("contrastive", {"repeat": 1.5}, "`contrastive.repeat` is a share of a sentence's tokens"),
        ("sentence_order", {"head_dropout": 1.0}, "`sentence_order.head_dropout`"),
        ("mixed", {"of": ["masked"]}, "must name two objectives or more; it names 1"),
        ("mixed", {"of": ["masked", "mixed"]}, "names `mixed` itself"),
        ("mixed", {"of": ["span", "masked"]}, "names `span`, which reads sources and answers"),
        ("mixed", {"of": ["masked", "masked_image"]}, "names `masked_image`, which reads images"),
        ("mixed", {"of": ["masked", "causal"], "shares": [1.0]}, "give each of the 2 objectives a share"),
    ],
)
def test_settings_without_sense_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        plugin.build("objectives", plugin.Choice(name, settings))


def test_objectives_that_read_a_corpus_otherwise_do_not_mix(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match="read a corpus differently"):
        made(tiny, "mixed", of=["masked", "contrastive"])
