"""Multiple choice: rows in the usual shapes, each choice read with what is asked, likelihoods as defined."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from common import as_csv, gap, put, told
from penjing import evaluate, load, tune
from penjing.data.batches import halves, packed
from penjing.data.choices import asked_choices, read_choices
from penjing.data.parts import part_of
from penjing.engine.scoring import predictions
from penjing.errors import DataError, SpecError
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.tasks.choose import choose

Tiny = Callable[..., Path]
ROWS = [
    {"question": "my card was charged", "choices": ["billing", "a parcel", "log in"], "answer": "A"},
    {"question": "the courier is late", "choices": ["billing", "a parcel"], "answer": "B"},
    {"question": "the login page", "choices": ["an order is late", "the invoice", "a fee", "reset it"],
     "answer": "D"},
    {"question": "i was billed too much", "choices": ["a wrong fee", "a parcel"], "answer": "A"},
]  # fmt: skip


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return put(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS * 5))


# ---- rows


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("premise,choice1,choice2,question,label", ("it rained", "wet", "dry", "effect", "0")),
        ("ctx,ending0,ending1,label", ("it rained What happened as a result?", "wet", "dry", "0")),
        ("question,A,B,answer", ("it rained What happened as a result?", "wet", "dry", "A")),
        ("question,option_a,option_b,answer", ("it rained What happened as a result?", "wet", "dry", "wet")),
        ("question,choices,answerKey",
         ("it rained What happened as a result?", '["wet", "dry"]', "A")),
    ],
)  # fmt: skip
def test_the_usual_shapes_are_read(tmp_path: Path, head: str, row: tuple[str, ...]) -> None:
    rows = read_choices(str(put(tmp_path, "r.csv", as_csv([row], head=head))))
    assert rows.items == [("it rained What happened as a result?", ("wet", "dry"), 0)]


def test_places_are_counted_from_one_where_none_is_zero(tmp_path: Path) -> None:
    table = as_csv([("q", "x", "y", "2"), ("p", "x", "y", "1")], head="question,choice1,choice2,label")
    rows = read_choices(str(put(tmp_path, "r.csv", table)))
    assert [item[2] for item in rows.items or ()] == [1, 0]
    assert rows.notes[-1] == "the right choice is counted from 1"


def test_places_that_may_count_from_zero_or_one_are_refused_until_it_is_said(tmp_path: Path) -> None:
    table = as_csv([("q", "x", "y", "z", "1"), ("p", "x", "y", "z", "2")], head="question,a1,a2,a3,label")
    path = str(put(tmp_path, "r.csv", table.replace("a1,a2,a3", "choice1,choice2,choice3")))
    with pytest.raises(DataError) as error:
        choose().rows(path)
    told(error, "r.csv: the right choices", "numbers from 0 or from 1", "neither 0 nor", "choose: {first: 0}")
    for first in (0, 1):
        rows = choose(first=first).rows(path)
        assert [item[2] for item in rows.items or ()] == [1 - first, 2 - first]
    assert len(choose().rows(path, labelled=False)) == 2


def test_numbers_are_places_unless_all_of_them_are_choices(tmp_path: Path) -> None:
    def places(*rows: tuple[str, str]) -> list[Any]:
        lines = [{"question": "q", "choices": choices.split(), "answer": own} for choices, own in rows]
        found = read_choices(str(put(tmp_path, "r.jsonl", "\n".join(map(json.dumps, lines)))))
        return [item[2] for item in found.items or ()]

    assert places(("3 2 1 0", "3"), ("a b c d", "0")) == [3, 0]  # as in MMLU
    assert places(("3 2 1 0", "3"), ("7 8 9 4", "8")) == [0, 1]


def test_letters_are_places_unless_all_labels_are_choices(tmp_path: Path) -> None:
    def places(*rows: tuple[str, str]) -> list[Any]:
        lines = [{"question": "q", "choices": choices.split(), "answer": own} for choices, own in rows]
        found = read_choices(str(put(tmp_path, "r.jsonl", "\n".join(map(json.dumps, lines)))))
        return [item[2] for item in found.items or ()]

    assert places(("B A AB O", "A"), ("w x y z", "D")) == [0, 3]
    assert places(("B A AB O", "A"), ("w x y z", "z")) == [1, 3]
    assert places(("k l m n o p q r s t", "J"), ("k l m n o p q r s t", "i")) == [9, 8]  # as in MMLU-Pro


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "options": {"A": "x", "B": "y", "C": "z"}, "answer": "z"},  # MedQA
        {"question": "q", "opa": "x", "opb": "y", "opc": "z", "cop": "C", "choice_type": "single"},  # MedMCQA
        {"question_stem": "q", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]},
         "answerKey": "C"},  # OpenBookQA
    ],
)  # fmt: skip
def test_sets_of_exams_are_read_and_asked_as_they_are(tmp_path: Path, row: dict[str, Any]) -> None:
    (item,) = read_choices(str(put(tmp_path, "r.jsonl", json.dumps(row)))).items or ()
    assert item == ("q", ("x", "y", "z"), 2)
    (item,) = asked_choices([row]).items or ()
    assert item == ("q", ("x", "y", "z"), None)


def test_a_place_counts_the_columns_whatever_is_empty(tmp_path: Path) -> None:
    rows = [("q", "x", "y", "", "z", "w", "D"), ("q", "x", "y", "v", "", "", "B")]
    path = put(tmp_path, "r.csv", as_csv(rows, head="question,A,B,C,D,E,answer"))
    assert read_choices(str(path)).items == [("q", ("x", "y", "z", "w"), 2), ("q", ("x", "y", "v"), 1)]
    rows = [("q", "x", "y", "", "z", "w", "C")]
    with pytest.raises(DataError, match=r"line 2: one of 4 choices was to be right; the row says `C`"):
        read_choices(str(put(tmp_path, "s.csv", as_csv(rows, head="question,A,B,C,D,E,answer"))))


def test_more_than_nine_columns_of_choices_keep_their_order(tmp_path: Path) -> None:
    head = ",".join(f"choice{i}" for i in range(1, 12))
    table = as_csv([("q", *"abcdefghijk", "11")], head=f"question,{head},label")
    (item,) = read_choices(str(put(tmp_path, "r.csv", table))).items or ()
    assert item == ("q", tuple("abcdefghijk"), 10)


def test_each_file_says_in_its_own_way_which_is_right(tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["4", "3", "2", "1"]}
    answers = {"a": ["0", "2"], "b": ["2", "4"], "c": ["1", "5"]}  # c: 5 is no choice, so places from 1
    rows = {name: [{**row, "answer": own} for own in given] for name, given in answers.items()}
    rows["c"][1]["choices"] = list("vwxyz")
    files = [put(tmp_path, f"{n}.jsonl", "\n".join(map(json.dumps, own))) for n, own in rows.items()]
    found = read_choices([str(file) for file in files])
    assert [item[2] for item in found.items or ()] == [0, 2, 2, 0, 0, 4]
    assert [note for note in found.notes if "counted" in note] == [
        "the right choice is counted from 0", "the right choice is counted from 1",
    ]  # fmt: skip


def test_rows_that_cannot_be_are_told(tmp_path: Path) -> None:
    one = put(tmp_path, "one.jsonl", '{"question": "q", "choices": ["x"], "answer": "A"}\n')
    with pytest.raises(DataError) as error:
        read_choices(str(one))
    told(error, "one.jsonl, line 1: at least two choices were wanted", "the row has 1", "1 of 1 rows")
    other = put(tmp_path, "other.csv", as_csv([("q", "x", "y", "C")], head="question,A,B,answer"))
    with pytest.raises(DataError) as error:
        read_choices(str(other))
    told(error, "line 2: one of 2 choices was to be right", "`C`", "a place, a letter or the choice's words")
    none = put(tmp_path, "none.csv", as_csv([("q", "x")], head="question,label"))
    with pytest.raises(DataError, match=r"columns of choices were wanted.*Columns: question, label"):
        read_choices(str(none))
    with pytest.raises(DataError, match=r"item 1 of 1.*question"):
        asked_choices([{"question": "q", "choices": ["x"]}])
    unsaid = asked_choices([{"question": "q", "choices": ["x", "y"]}])
    with pytest.raises(DataError, match=r"line 1: it was to be told which choice is right"):
        choose().encode(unsaid, [])


@pytest.mark.parametrize(
    "given", [{"question": "q", "choices": ["x", "y"]}, ("q", ["x", "y"]), ["q", "x", "y"],
              '{"question": "q", "A": "x", "B": "y"}']
)  # fmt: skip
def test_questions_are_asked_in_many_forms(given: Any) -> None:
    assert asked_choices([given]).items == [("q", ("x", "y"), None)]


# ---- learned scores


def test_each_choice_is_read_with_what_is_asked(tiny: Tiny, rows_file: Path) -> None:
    torch.manual_seed(0)
    task, base = choose(head_dropout=0.0), load_base(str(tiny("bert")))
    part = part_of(task, base, task.rows(str(rows_file)), [], 64)
    model = Model(base.trunk, task.head(base.width, [], "mean", None), base.way).eval()
    found = predictions(task, model, part, tokens=40)
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    plain = AutoModel.from_pretrained(tiny("bert")).eval()
    for row, one in zip(ROWS, found, strict=False):
        choices = row["choices"]
        given = tokenizer([row["question"]] * len(choices), choices, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = plain(**given).last_hidden_state
            means = [s[m.bool()].mean(0) for s, m in zip(states, given["attention_mask"], strict=True)]
            wanted = model.head.out(torch.stack(means))[:, 0].softmax(0)  # type: ignore[operator,union-attr]
        assert gap(torch.from_numpy(one.p), wanted.double()) < 1e-5


def test_halves_of_rows_with_unequal_choices_sum_to_the_whole(tiny: Tiny, rows_file: Path) -> None:
    torch.manual_seed(0)
    task, base = choose(head_dropout=0.0), load_base(str(tiny("bert")))
    part = part_of(task, base, task.rows(str(rows_file)), [], 64)
    model = Model(base.trunk, task.head(base.width, [], "mean", None), base.way).eval()
    whole = packed(part, np.arange(4))
    assert whole.counts is not None
    assert whole.counts.tolist() == [3, 2, 4, 2]
    both = halves(whole)
    assert both is not None
    with torch.no_grad():
        wanted = task.loss(model, whole).mean
        found = sum(task.loss(model, half).mean * half.n_targets for half in both) / 4
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


# ---- likelihood


def test_a_causal_model_judges_by_the_mean_log_probability_of_a_choices_tokens(
    tiny: Tiny, rows_file: Path
) -> None:
    task, base = choose(how="likelihood"), load_base(str(tiny("gpt2")))
    assert task.bind is not None
    task = task.bind(base, [])
    part = part_of(task, base, task.rows(str(rows_file)), [], 64)
    model = Model(base.trunk, task.head(base.width, [], "last", None), base.way).eval()
    found = predictions(task, model, part)
    tokenizer = AutoTokenizer.from_pretrained(tiny("gpt2"))
    plain = AutoModelForCausalLM.from_pretrained(tiny("gpt2")).eval()
    for row, one in zip(ROWS, found, strict=False):
        means = []
        for choice in row["choices"]:
            head, own = tokenizer(row["question"])["input_ids"], tokenizer(f" {choice}")["input_ids"]
            with torch.no_grad():
                logits = plain(torch.tensor([head + own])).logits[0].log_softmax(-1)
            means.append(float(sum(logits[len(head) + k - 1, own[k]] for k in range(len(own))) / len(own)))
        assert one.p == pytest.approx(torch.tensor(means).softmax(0).numpy(), abs=1e-5)


def test_a_masked_model_judges_each_token_with_the_others_seen(tiny: Tiny, rows_file: Path) -> None:
    task, base = choose(how="likelihood"), load_base(str(tiny("bert")))
    assert task.bind is not None
    task = task.bind(base, [])
    part = part_of(task, base, task.rows(str(rows_file)).take([1]), [], 64)
    model = Model(base.trunk, task.head(base.width, [], "cls", None), base.way).eval()
    (found,) = predictions(task, model, part)
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    plain = AutoModelForMaskedLM.from_pretrained(tiny("bert")).eval()
    means = []
    for choice in ROWS[1]["choices"]:
        head = [
            tokenizer.cls_token_id,
            *tokenizer(ROWS[1]["question"], add_special_tokens=False)["input_ids"],
        ]
        own = tokenizer(choice, add_special_tokens=False)["input_ids"]
        whole, told_off = [*head, *own, tokenizer.sep_token_id], []
        for k in range(len(own)):
            masked = list(whole)
            masked[len(head) + k] = tokenizer.mask_token_id
            with torch.no_grad():
                logits = plain.eval()(torch.tensor([masked])).logits[0].log_softmax(-1)
            told_off.append(float(logits[len(head) + k, own[k]]))
        means.append(sum(told_off) / len(told_off))
    assert found.p == pytest.approx(torch.tensor(means).softmax(0).numpy(), abs=1e-5)


def test_a_long_context_loses_its_beginning_and_a_choice_never(tiny: Tiny, rows_file: Path) -> None:
    task, base = choose(how="likelihood"), load_base(str(tiny("gpt2")))
    assert task.bind is not None
    task = task.bind(base, [])
    rows = asked_choices([("word " * 50 + "end", ["one", "two"])])
    part = part_of(task, base, rows, [], 12, labelled=False)
    assert part.tokens.cut == 1
    assert part.tokens.lengths.max() <= 12
    with pytest.raises(SpecError, match=r"`data.max_length` is 3; the choice 'word"):
        part_of(task, base, asked_choices([("q", ["word " * 9, "two"])]), [], 3, labelled=False)


# ---- whole runs


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cross", "likelihood"])
def test_a_run_is_saved_and_answers(how: str, small: dict[str, Any], rows_file: Path) -> None:
    small["data"] = {"train": str(rows_file), "valid": str(rows_file), "test": str(rows_file)}
    run = tune(**small, task={"choose": {"how": how}})
    bundle = load(run.folder)
    after = run.result["after"]["values"]
    assert evaluate(bundle, str(rows_file))["values"] == pytest.approx(after)
    (answer,) = bundle.predict([{"question": "my card was charged", "choices": ["billing", "a parcel"]}])
    assert answer["choice"] in ("billing", "a parcel")
    assert sum(answer["scores"]) == pytest.approx(1)
