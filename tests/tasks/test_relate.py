"""Relations: formats, markers, long texts, errors, a whole run, and entities found and then related."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common import put
from penjing.data.relations import Related, asked, read
from penjing.errors import DataError, NotSupported, SpecError
from penjing.models.heads import RelationHead
from penjing.models.load import Base, load
from penjing.records import Part, Rows
from penjing.tasks.relate import pairs_of, relate

Tiny = Callable[..., Path]
SEMEVAL = (
    '1\t"The <e1>audits</e1> were about <e2>waste</e2>."\r\nMessage-Topic(e1,e2)\r\nComment: an audit\r\n\r\n'
    '2\t"A <e2>stick</e2> hit the <e1>master</e1>."\r\nOther\r\nComment:\r\n'
)
TOKENS = ["The", "audits", "were", "about", "waste", "."]
WANTED = ("The audits were about waste.", "audits", "waste")


def seen(rows: Rows, row: int = 0) -> tuple[str, str, str]:
    item = (rows.items or [])[row]
    return item.text, item.text[slice(*item.first)], item.text[slice(*item.second)]


def lines(folder: Path, *rows: Any) -> Path:
    return put(folder, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


# ---- formats


def test_semeval_blocks_are_read_as_they_are(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "TRAIN.TXT", SEMEVAL))
    assert (seen(rows), seen(rows, 1)) == (WANTED, ("A stick hit the master.", "master", "stick"))
    assert rows.labels == [("Message-Topic(e1,e2)",), ("Other",)]
    assert rows.lines.tolist() == [1, 5]
    assert rows.texts[0] == "The <e1>audits</e1> were about <e2>waste</e2>."


@pytest.mark.parametrize(
    "row",
    [
        {"text": "The <e1>audits</e1> were about <e2>waste</e2>.", "label": "x"},
        {"text": WANTED[0], "head": {"start": 4, "end": 10}, "tail": {"start": 22, "end": 27}, "label": "x"},
        {"token": TOKENS, "h": {"pos": [1, 2]}, "t": {"pos": [4, 5]}, "relation": "x"},
        {"token": TOKENS, "subj_start": 1, "subj_end": 1, "obj_start": 4, "obj_end": 4, "relation": "x"},
    ],
)  # fmt: skip
def test_spans_and_marks_are_read(row: dict[str, Any], tmp_path: Path) -> None:
    rows = read(lines(tmp_path, row, row))
    assert seen(rows)[1:] == WANTED[1:]
    assert rows.labels[0] == ("x",)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "The <e1>audits</e1> were.", "label": "x"}, r"line 1: `<e2>` is missing"),
        ({"text": "no marks", "label": "x"}, r"line 1: two entities were wanted.*found 'no marks'"),
        ({"text": "<e1>a</e1> <e2>b</e2>", "label": ""}, r"line 1: the relation is empty.*drop_empty"),
        ({"text": "<e1>a <e2>b</e2></e1>", "label": "x"}, r"line 1: the two entities overlap \(`a b`"),
        ({"text": "<e1></e1> <e2>b</e2>", "label": "x"}, r"line 1: an entity is empty"),
        ({"text": "ab", "head": [0, 9], "tail": [1, 2], "label": "x"}, r"line 1: the entity at 0–9 lies out"),
        ({"text": "ab", "subj_start": None, "subj_end": 0, "label": "x"}, r"whole numbers were wanted"),
        ({"text": "<e1>a</e1> <e2>b</e2>", "label": ["x", "y"]}, r"one relation was wanted in `label`.*x, y"),
        ({"text": "<e1>a</e1> <e2>b</e2>", "n": 1}, r"which column holds the relation could not be found"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_are_told_with_their_line(row: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        read(lines(tmp_path, row, row))


def test_numbered_relations_have_the_names_of_their_file(tmp_path: Path) -> None:
    label = {"names": ["Other", "Message-Topic(e1,e2)"], "_type": "ClassLabel"}
    put(tmp_path, "dataset_info.json", json.dumps({"features": {"relation": label}}))
    row = {"sentence": "<e1>a</e1> <e2>b</e2>", "relation": 1}
    assert read(lines(tmp_path, row, row)).labels == [("Message-Topic(e1,e2)",)] * 2


def test_inputs_are_marked_texts_or_spans() -> None:
    rows = asked(["<e1>a</e1> <e2>b</e2>", {"text": "a b", "head": [0, 1], "tail": [2, 3]}])
    assert seen(rows) == seen(rows, 1) == ("a b", "a", "b")
    with pytest.raises(DataError, match=r"item 1 of 1: two entities were wanted"):
        asked(["plain"])


# ---- what the model reads


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return load(str(tiny("bert")))


def part_of(base: Base, *items: Related, longest: int = 64, **settings: Any) -> Part:
    part = relate(**settings).part(base, asked(list(items)), ["a", "b"], longest, labelled=False)  # type: ignore[misc]
    assert isinstance(part, Part)
    return part


def pieces(base: Base, part: Part, row: int = 0) -> tuple[list[str], list[str], list[str]]:
    assert part.marks is not None
    ids = part.tokens.ids[part.tokens.starts[row] : part.tokens.starts[row + 1]]
    words = base.tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    a, b, c, d = part.marks[row]
    return words, words[a:b], words[c:d]


@pytest.mark.parametrize(
    ("markers", "said"),
    [
        ("plain", "my @ parcel @ is # late #"),
        ("typed", "my @ * order * parcel @ is # ^ order ^ late #"),
        ("none", "my parcel is late"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_marks_stand_around_the_entities(markers: Any, said: str, turned: bool, base: Base) -> None:
    text = "my parcel is late"
    spans = ((3, 9), (13, 17))
    first, second = reversed(spans) if turned else spans
    part = part_of(base, Related(text, first, second, ("order", "order")), markers=markers)
    words, one, other = pieces(base, part)
    if turned:
        one, other = other, one
        said = said.translate(str.maketrans("@#*^", "#@^*"))
    ids = base.tokenizer(said)["input_ids"]
    assert words == base.tokenizer.convert_ids_to_tokens(ids)
    assert one == base.tokenizer.tokenize("parcel")
    assert other == base.tokenizer.tokenize("late")


@pytest.mark.parametrize(("apart", "side"), [(0, 60), (3, 60), (60, 3), (60, 60)])
def test_both_entities_survive_in_a_long_text(apart: int, side: int, base: Base) -> None:
    filler = "the order was "
    text = filler * side + "parcel " + filler * apart + "late " + filler * side
    start = len(filler) * side
    second = start + len("parcel ") + len(filler) * apart
    part = part_of(base, Related(text, (start, start + 6), (second, second + 4)), longest=24)
    words, one, other = pieces(base, part)
    assert len(words) == 24
    assert part.tokens.cut == 1
    assert one == base.tokenizer.tokenize("parcel")
    assert other == base.tokenizer.tokenize("late")


def test_the_head_is_what_one_computes_by_hand() -> None:
    torch.manual_seed(0)
    head = RelationHead(4, 3, dropout=0.5, pool="cls").eval()
    states, lengths = torch.randn(9, 4), torch.tensor([5, 4])
    spans = torch.tensor([[1, 2, 3, 5], [0, 2, 2, 3]])
    rows: list[Tensor] = []
    for row, (a, b, c, d) in zip(states.split([5, 4]), spans.tolist(), strict=True):
        parts = [head.whole(row[0]), head.entity(row[a:b].mean(0)), head.entity(row[c:d].mean(0))]
        rows.append(head.out(torch.tanh(torch.cat(parts))))
    assert torch.allclose(head(states, lengths, spans), torch.stack(rows), atol=1e-6)


def test_typed_marks_need_types() -> None:
    rows = asked(["<e1>a</e1> <e2>b</e2>", "<e1>a</e1> <e2>c</e2>"])
    rows.labels[:] = [("x",), ("y",)]
    with pytest.raises(SpecError, match=r"`relate.markers: typed`.*no row says them"):
        relate(markers="typed").label_names(rows)


# ---- pairs, and whole runs


def test_pairs_follow_the_text_where_relations_have_directions() -> None:
    entities = [{"start": 5, "end": 7}, {"start": 0, "end": 2}, {"start": 1, "end": 3}]
    directed, plain = ["R(e1,e2)", "Other"], ["born", "works"]
    assert pairs_of(entities, "", directed) == [(1, 0), (2, 0)]
    assert sorted(pairs_of(entities, "", plain)) == [(0, 1), (0, 2), (1, 0), (2, 0)]


def owners(n: int, seed: int) -> tuple[str, str]:
    """Rows of tokens with tags, and SemEval-like rows of who has what."""
    draw = np.random.default_rng(seed)
    tags, pairs = [], []
    for _ in range(n):
        who, what = str(draw.choice(["ann", "bob", "eve"])), str(draw.choice(["card", "parcel", "order"]))
        has = draw.random() < 0.5
        words = [who, *(["has", "the"] if has else ["lost", "a"]), what]
        tags.append({"tokens": words, "tags": ["B-who", "O", "O", "B-what"]})
        text = f"<e1>{who}</e1> {' '.join(words[1:3])} <e2>{what}</e2>"
        pairs.append({"text": text, "label": "Has(e1,e2)" if has else "Other"})
    return tuple("".join(json.dumps(row) + "\n" for row in rows) for rows in (tags, pairs))  # type: ignore[return-value]


@pytest.mark.slow
def test_entities_found_by_one_bundle_are_related_by_another(tiny: Tiny, tmp_path: Path) -> None:
    from penjing import evaluate, tune
    from penjing import load as load_bundle
    from penjing.jobs.predict import answers_to
    from penjing.jobs.relating import relations

    tags, pairs = owners(80, 0)
    train = {"steps": 50, "evals": 1, "batch": 16, "lr": 3e-3}
    common = {
        "base": str(tiny("bert")),
        "train": train,
        "device": "cpu",
        "precision": "fp32",
        "out": str(tmp_path),
    }
    tagger = tune({**common, "task": "tag", "data": {"train": str(put(tmp_path, "t.jsonl", tags))}})
    data = put(tmp_path, "r.jsonl", pairs)
    run = tune({**common, "task": "relate", "data": {"train": str(data)}})
    assert run.result["best_name"] == "official_f1"
    assert evaluate(run, str(data))["values"]["official_f1"] > 0.9
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "official macro F1" in page
    finder, relater = load_bundle(tagger.folder), load_bundle(run.folder)
    has, lost = relations(finder, relater, ["bob has the order", "eve lost a card"])
    assert [e["text"] for e in has["entities"]] == ["bob", "order"]
    assert [(r["head"], r["tail"], r["label"]) for r in has["relations"]] == [(0, 1, "Has(e1,e2)")]
    assert lost["relations"] == []
    (said,) = answers_to(["bob has the order"], None, lambda: relater, finder=lambda: finder)  # type: ignore[arg-type]
    assert said.line.startswith("bob Has(e1,e2) order ")
    with pytest.raises(NotSupported, match=r"`task: tag` was wanted to find entities.*`relate`.*--with"):
        relations(relater, finder, ["x"])
