"""The baseline of entities: learns what is learnable, stays bounded, says what it left out."""

import numpy as np
import pytest

from penjing.baselines import entities as word_tagger
from penjing.baselines.entities import fit_tagger
from penjing.data.entities import Tagged, words_of
from penjing.entities.scores import Truth, scores_of

NAMES = ["Bonn", "Rome", "Oslo", "Lima", "Cairo", "Quito"]


def rows(n: int, seed: int) -> tuple[list[Tagged], list[Truth]]:
    draw = np.random.default_rng(seed)
    items, truth = [], []
    for _ in range(n):
        text = f"we flew to {draw.choice(NAMES)} with {draw.choice(['Ann', 'Bob', 'Eve'])} today"
        start = text.index("to ") + 3
        city = text[start:].split()[0]
        who = text.index("with ") + 5
        items.append(Tagged(text, words_of(text), ()))
        truth.append(Truth(frozenset({(start, start + len(city), 0), (who, who + 3, 1)})))
    return items, truth


def test_it_learns_what_words_and_neighbours_say() -> None:
    fitted = fit_tagger(*rows(60, 0), 2)
    items, truth = rows(20, 1)
    assert scores_of(fitted.tag(items), truth, ["city", "who"], [], 0).values["micro_f1"] > 0.95
    assert fitted.notes == ()


def test_it_learns_from_a_bounded_number_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_tagger, "MOST_WORDS", 70)
    assert fit_tagger(*rows(60, 0), 2).notes == ("the baseline learned from 10 of 60 rows",)


def test_rows_without_entities_or_words_are_answered() -> None:
    items, _ = rows(5, 0)
    none = [Truth(frozenset())] * 5
    assert all(not one.entities for one in fit_tagger(items, none, 2).tag(items))
    assert fit_tagger(*rows(20, 0), 2).tag([Tagged("", (), ())])[0].entities == ()


def test_a_class_that_no_row_has_is_never_answered() -> None:
    items, truth = rows(20, 0)
    only = [Truth(frozenset(place for place in one.entities if place[2] == 1)) for one in truth]
    assert {label for one in fit_tagger(items, only, 2).tag(items) for _, _, label, _ in one.entities} == {1}


def test_where_one_tag_is_all_there_is_it_and_the_intents_are_said() -> None:
    items = [Tagged(name, words_of(name), ()) for name in NAMES]
    truth = [Truth(frozenset({(0, len(name), 0)}), 1) for name in NAMES]
    shares = (["ask", "go"], lambda texts: np.array([[0.2, 0.8]] * len(texts)))
    found = scores_of(
        fit_tagger(items, truth, 1, intents=shares).tag(items), truth, ["city"], ["ask", "go"], 0
    )
    assert (found.values["micro_f1"], found.values["frame_accuracy"]) == (1.0, 1.0)
