"""Tags and spans: every scheme against examples by hand, against seqeval, and backwards."""

import random

import numpy as np
import pytest

from penjing.data.schemes import (
    find_scheme,
    rules,
    spans_at,
    spans_of,
    tag_names,
    tagged,
)

SPANS = [(0, 2, "PER"), (2, 3, "PER"), (4, 7, "LOC")]
WRITTEN = {
    "bio1": "I-PER I-PER B-PER O I-LOC I-LOC I-LOC",
    "bio2": "B-PER I-PER B-PER O B-LOC I-LOC I-LOC",
    "bioes": "B-PER E-PER S-PER O B-LOC I-LOC E-LOC",
}
OTHERS = {
    "BILOU": "B-PER L-PER U-PER O B-LOC I-LOC L-LOC",
    "BMES": "B-PER E-PER S-PER O B-LOC M-LOC E-LOC",
    "BMES with underscores": "B_PER E_PER S_PER O B_LOC M_LOC E_LOC",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_a_scheme_is_found_out_and_read(scheme: str) -> None:
    tags = WRITTEN[scheme].split()
    assert find_scheme([["O"], tags]) == scheme
    assert spans_of(tags, scheme) == (SPANS, [])


@pytest.mark.parametrize("name", OTHERS)
def test_bilou_and_bmes_are_bioes_by_other_letters(name: str) -> None:
    tags = OTHERS[name].split()
    assert find_scheme([tags]) == "bioes"
    assert spans_of(tags, "bioes") == (SPANS, [])


def test_labels_without_prefixes_are_runs() -> None:
    tags = ["PER", "PER", "O", "B", "LOC", "LOC"]
    assert find_scheme([tags]) == "io"
    assert spans_of(tags, "io") == ([(0, 2, "PER"), (3, 4, "B"), (4, 6, "LOC")], [])


def test_one_stray_i_does_not_make_bio1() -> None:
    assert find_scheme([["B-PER", "I-PER", "O"], ["O", "I-LOC"]]) == "bio2"


def test_a_type_may_hold_dashes() -> None:
    assert spans_of(["B-iso-8601", "I-iso-8601"], "bio2") == ([(0, 2, "iso-8601")], [])


@pytest.mark.parametrize(
    ("tags", "scheme", "spans", "at", "text"),
    [
        ("O I-PER O", "bio2", [(1, 2, "PER")], 1, "`I-PER` stands behind `O`"),
        ("I-PER O", "bio2", [(0, 1, "PER")], 0, "`I-PER` stands at the beginning"),
        ("B-PER I-LOC", "bio2", [(0, 1, "PER"), (1, 2, "LOC")], 1, "`I-LOC` stands behind `B-PER`"),
        ("B-PER O", "bioes", [(0, 1, "PER")], 1, "`O` stands behind `B-PER`"),
        ("O B-PER", "bioes", [(1, 2, "PER")], 1, "not closed"),
        ("O X-PER O", "bio2", [], 1, "`X-PER` has none of the prefixes"),
    ],
)
def test_a_contradiction_is_named_and_read_as_the_conll_scorer_does(
    tags: str, scheme: str, spans: list[tuple[int, int, str]], at: int, text: str
) -> None:
    found, flaws = spans_of(tags.split(), scheme)
    assert found == spans
    assert [flaw.token for flaw in flaws] == [at]
    assert text in flaws[0].text


@pytest.mark.parametrize(("scheme", "prefixes"), [("bio2", "BI"), ("bioes", "BIES")])
def test_random_tags_are_read_as_seqeval_reads_them(scheme: str, prefixes: str) -> None:
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    draw = random.Random(0)
    choices = ["O", *(f"{p}-{label}" for p in prefixes for label in "XY")]
    for _ in range(2000):
        tags = draw.choices(choices, k=draw.randint(1, 8))
        wanted = [(first, last + 1, label) for label, first, last in labeling.get_entities(tags)]
        assert spans_of(tags, scheme)[0] == wanted, tags


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_a_models_tags_stand_for_their_spans(scheme: str) -> None:
    spans = [(0, 2, 1), (2, 3, 1), (4, 7, 0)]
    tags = tagged(spans, 8, scheme)
    assert spans_at(tags.tolist(), scheme) == spans
    names = [tag_names(["LOC", "PER"], scheme)[tag] for tag in tags]
    wanted = WRITTEN["bioes" if scheme == "bioes" else "bio2"].split()
    assert names == [*wanted, "O"]


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_rules_let_pass_what_has_no_flaw(scheme: str) -> None:
    names = tag_names(["X", "Y"], scheme)
    begin, follow, end = rules(2, scheme)
    draw = np.random.default_rng(0)
    for _ in range(2000):
        path = draw.integers(0, len(names), draw.integers(1, 5))
        legal = begin[path[0]] and end[path[-1]] and follow[path[:-1], path[1:]].all()
        flaws = spans_of([names[tag] for tag in path], "bioes" if scheme == "bioes" else "bio2")[1]
        assert bool(legal) == (not flaws), [names[tag] for tag in path]
