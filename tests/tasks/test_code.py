"""Code on a tiny base: what is learned of files and holes, how problems are judged, a run that completes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import told
from penjing import load as open_bundle
from penjing import plugin, tune
from penjing.coding import Answer
from penjing.data.code import Problem
from penjing.data.fields import given_rows
from penjing.errors import DataError, NotSupported, SpecError
from penjing.models.completing import hole_of
from penjing.models.filling import filling_of
from penjing.models.load import Base, load
from penjing.records import Part, Rows
from penjing.task import Task

Tiny = Callable[..., Path]
FILE = "def add(a, b):\n    return a + b\n\n\ndef late(parcel):\n    return parcel.is_late\n"


def rows_of(*items: Problem) -> Rows:
    return given_rows(items, [one.prompt + (one.completion or "") for one in items])


def bound(base: Base, **settings: Any) -> Task:
    task: Task = plugin.build("tasks", plugin.Choice("code", {"longest": 8, **settings}))
    assert task.bind is not None
    return task.bind(base, [], weights=True)  # type: ignore[no-any-return]


def part_of(task: Task, base: Base, rows: Rows, longest: int = 128, *, labelled: bool = True) -> Part:
    assert task.part is not None
    return task.part(base, rows, [], longest, labelled=labelled)  # type: ignore[no-any-return]


def row(part: Part, i: int) -> list[int]:
    return part.tokens.ids[part.tokens.starts[i] : part.tokens.starts[i + 1]].tolist()  # type: ignore[no-any-return]


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return load(str(tiny("gpt2")))


def test_of_files_everything_is_learned_and_pieces_are_the_file(base: Base) -> None:
    task = bound(base)
    part = part_of(task, base, rows_of(Problem("", FILE * 4, whole=True)), 96)
    eos = base.tokenizer.eos_token_id
    pieces = [row(part, i) for i in range(len(part.tokens))]
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 96
    assert "".join(base.tokenizer.decode([t for t in piece if t != eos]) for piece in pieces) == FILE * 4
    assert pieces[-1][-1] == eos
    labels = part.tokens.labels
    assert labels is not None
    assert labels.tolist() == [t for piece in pieces for t in [*piece[1:], -100]]


def test_of_problems_the_completion_alone_is_learned(base: Base) -> None:
    part = part_of(bound(base), base, rows_of(Problem("my card was", " late")))
    labels = part.tokens.labels
    assert labels is not None
    said = [*base.tokenizer(" late").input_ids, base.tokenizer.eos_token_id]
    assert labels[labels != -100].tolist() == said
    assert row(part, 0) == [*base.tokenizer("my card was").input_ids, *said]


@pytest.mark.parametrize("spm", [0.0, 1.0])
def test_a_hole_is_written_as_the_paper_does(base: Base, spm: float) -> None:
    fill = filling_of(base.tokenizer)
    rng = np.random.default_rng(3)
    a, b = np.sort(np.random.default_rng(3).integers(0, len(FILE) + 1, size=2)).tolist()
    before, inside, behind = (fill.ids(text) for text in (FILE[:a], FILE[a:b], FILE[b:]))
    prefix, suffix, middle = (fill.ids(f"<|fim_{name}|>") for name in ("prefix", "suffix", "middle"))
    wanted = (
        [*prefix, *suffix, *behind, *middle, *before, *inside]
        if spm
        else [*prefix, *before, *suffix, *behind, *middle, *inside]
    )
    assert fill.written(FILE, rng, spm=spm, room=500) == [*wanted, base.tokenizer.eos_token_id]
    behind = behind[:-2]
    wanted = (
        [*prefix, *suffix, *behind, *middle, *before, *inside]
        if spm
        else [*prefix, *before, *suffix, *behind, *middle, *inside]
    )
    short = fill.written(FILE, np.random.default_rng(3), spm=spm, room=len(wanted) + 1)
    assert short == [*wanted, base.tokenizer.eos_token_id]


def test_tokens_that_the_base_has_for_holes_are_used(tiny: Tiny) -> None:
    tokenizer = load(str(tiny("gpt2"))).tokenizer
    assert not filling_of(tokenizer).own
    names = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    fill = filling_of(tokenizer)
    assert fill.own
    assert [*fill.prefix, *fill.suffix, *fill.middle] == tokenizer.convert_tokens_to_ids(names)
    asked = fill.asked("ab " * 50, "cd " * 50, 40)
    assert len(asked) <= 40
    assert tokenizer.decode(asked).endswith("<fim_middle>")


def test_holes_are_a_function_of_seed_and_sequence(base: Base) -> None:
    task = bound(base, fim=0.5)
    part = part_of(task, base, rows_of(*[Problem("", FILE, whole=True)] * 40, Problem("a", "b")))
    assert task.vary is not None
    every = np.arange(len(part.tokens))
    one, again, other = (task.vary(part, every, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.tokens.ids, again.tokens.ids)
    assert not np.array_equal(one.tokens.ids, other.tokens.ids)
    some = task.vary(part, every[10:20], 1)
    assert [row(some, i) for i in range(10)] == [row(one, i) for i in range(10, 20)]
    changed = sum(row(one, i) != row(part, i) for i in range(40))
    assert 8 < changed < 32
    assert row(one, 40) == row(part, 40)
    for i in range(40):
        ids = row(one, i)
        labels = one.tokens.labels[one.tokens.starts[i] : one.tokens.starts[i + 1]]  # type: ignore[index]
        assert labels.tolist() == [*ids[1:], -100]


def test_what_a_file_is_judged_by_is_a_line_of_it() -> None:
    hole = hole_of(Problem("", FILE, whole=True), True)
    assert hole == hole_of(Problem("", FILE, whole=True), True)
    assert hole.before + hole.inside + hole.behind == FILE
    assert "\n" not in hole.inside
    assert len(hole.inside.strip()) >= 4
    assert hole_of(Problem("", FILE, whole=True), False).behind == ""


PROBLEMS = [
    Problem("def one():\n", "    return 1\n", tests="assert one() == 1"),
    Problem("def two():\n", "    return 2\n", tests="assert two() == 2"),
    Problem("def three():\n", "    return 3\n"),
]


@pytest.mark.slow
def test_tests_of_problems_are_run_and_their_ends_counted() -> None:
    task: Task = plugin.build(
        "tasks", plugin.Choice("code", {"run": True, "judge": "pass_at_1", "seconds": 2.0})
    )
    found = [
        Answer(("    return 1\n", "    return 0\n", "    return (\n", "    return 1\n"), True, 2.0, 4),
        Answer(
            ("    while True: pass\n", "    return 3\n", "    return 4\n", "    return 5\n"), False, 1.0, 2
        ),
        Answer(("    return 3\n",), True, 0.0, 0),
    ]
    targets = np.empty(3, dtype=object)
    targets[:] = PROBLEMS
    scores = task.score(found, targets, [], {}, 0)
    assert scores.values["pass_at_1"] == pytest.approx((0.5 + 0.0) / 2)
    ends = {name: scores.values[name] * 8 for name in ("passed", "failed", "syntax_error", "timeout")}
    assert ends == {"passed": 2, "failed": 4, "syntax_error": 1, "timeout": 1}
    assert scores.values["exact"] == pytest.approx(2 / 3)
    assert scores.values["loss"] == pytest.approx(0.5)
    assert task.difference is not None
    assert task.difference(found, found, targets, {}, {}, 0)[0] == 0


@pytest.mark.slow
def test_a_run_learns_and_its_bundle_completes(tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"prompt": f"def f{i}(a):\n", "completion": f"    return a + {i % 3}\n",
             "test": f"assert f{i}(1) == {1 + i % 3}"} for i in range(60)]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    run = tune(
        base=tiny("gpt2"), train=path, out=tmp_path / "runs", device="cpu", precision="fp32", steps=60,
        evals=2, batch=16, lr=5e-3, max_length=96, task={"code": {"longest": 24, "run": True, "samples": 2}},
    )  # fmt: skip
    result = run.read("result.json")
    assert result["best_name"] == "similarity"
    assert {"pass_at_1", "passed", "exact", "loss"} <= result["after"]["values"].keys()
    bundle = open_bundle(run.folder)
    first, filled = bundle.predict(["def f9(a):\n", {"prompt": "def f(a):\n", "suffix": "\n    return a\n"}])
    assert set(first) == set(filled) == {"text", "ended"}


def test_what_cannot_be_is_refused(tiny: Tiny, base: Base) -> None:
    with pytest.raises(NotSupported) as error:
        bound(load(str(tiny("bert"))))
    told(error, "see only those before them", "is an encoder")
    with pytest.raises(SpecError) as refused:
        bound(base, judge="pass_at_1")
    told(refused, "`code.judge` is pass_at_1", "Set `run: true`")
    with pytest.raises(SpecError, match="is a share from 0 to 1; it is 2"):
        bound(base, fim=2.0)
    with pytest.raises(SpecError, match="for prompt and answer in one row"):
        part_of(bound(base), base, rows_of(PROBLEMS[0]), 16)
    targets = np.empty(1, dtype=object)
    targets[:] = PROBLEMS[2:]
    task = bound(base, judge="pass_at_1", run=True)
    with pytest.raises(DataError, match="no row to be judged has tests"):
        task.score([Answer(("x",), True)], targets, [], {}, 0)
