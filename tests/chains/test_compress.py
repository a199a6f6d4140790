"""A chain of compressors: every step a bundle, weighed and proved; stopped chains go on; budgets choose."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from common import told
from penjing import compress, load
from penjing.chains import compress as chain
from penjing.chains import making, steps, weighed
from penjing.chains.budget import advise, read
from penjing.chains.compress import plan
from penjing.chains.weighed import Weighed, bytes_of, points
from penjing.cli import app
from penjing.errors import DataError, NotSupported, SpecError, WontFit
from penjing.files import CannotWrite
from penjing.jobs.prepare import rows_of
from penjing.jobs.seen import read_reference
from penjing.jobs.watch import watch
from penjing.models.layers import linears_of

Tuned = Callable[..., Any]
CHAIN = "trim_vocabulary>int8"


@pytest.fixture(scope="module")
def chained(tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A LoRA run on tiny BERT, compressed; tiny models lose more than a point, so all is allowed."""
    out = tmp_path_factory.mktemp("chain")
    return compress(tuned("lora").folder, CHAIN, out=out, allow=True, memory=False)


@pytest.mark.slow
def test_every_step_leaves_a_smaller_bundle_with_its_weight_and_proof(chained: Any) -> None:
    sizes = [chained.original.n_bytes]
    for step in chained.steps:
        proof = json.loads((step.folder / "parity.json").read_text())
        assert proof["alone_cosine"] > 0.9998
        assert proof["score"]["original"] == chained.original.score
        assert proof["files"]["card.json"]
        opened = load(step.folder)
        assert bytes_of(opened) == step.weighed.n_bytes
        assert len(opened.predict(["my card was charged twice"])) == 1
        sizes.append(step.weighed.n_bytes)
    assert sizes == sorted(sizes, reverse=True)
    assert opened.card["compressed"][0]["step"] == {
        "trim_vocabulary": {"text": None, "common": 0, "rows": True}
    }
    assert opened.card["stored"]["int8"] == 12


def test_an_exact_step_answers_the_rows_it_saw_as_before(chained: Any) -> None:
    proof = json.loads((chained.steps[0].folder / "parity.json").read_text())
    assert proof["rows_looked_at"]["of_largest_output"] < 1e-4
    assert not [one for one in chained.steps[0].broken if "saw" in one]


def test_every_step_keeps_what_it_sees_itself_of_the_rows_to_compare_drift_with(
    chained: Any, tuned: Tuned
) -> None:
    rows = rows_of(tuned("lora").spec, tuned("lora").bundle.task).valid
    for step in chained.steps:
        bundle = load(step.folder)
        seen = read_reference(bundle).seen
        assert len(seen) == len(rows)
        assert seen.answers == [one["label"] for one in bundle.predict(rows.texts)]
        found = watch(bundle, data=tuned("lora").spec.data.train, reference=tuned("lora").spec.data.train)
        assert not found.moved


@pytest.mark.slow
def test_a_chain_that_is_asked_again_makes_nothing_anew(
    chained: Any, tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in chained.folder.rglob("*.safetensors")}
    monkeypatch.setattr(making, "held_of", lambda bundle: pytest.fail("a finished step was made anew"))
    again = compress(tuned("lora").folder, CHAIN, out=chained.folder, allow=True, memory=False)
    assert [step.weighed for step in again.steps] == [step.weighed for step in chained.steps]
    assert before == {path: path.stat().st_mtime_ns for path in chained.folder.rglob("*.safetensors")}


@pytest.mark.slow
def test_a_model_whose_memory_cannot_be_measured_is_weighed_once(
    chained: Any, tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(chained.folder, out)
    monkeypatch.setattr(weighed, "WAIT_S", 1e-3)  # the process is not done by then
    first = compress(tuned("lora").folder, CHAIN, out=out, allow=True)
    assert first.steps[-1].weighed.peak_mib is None
    monkeypatch.setattr(chain, "weigh", lambda *a, **k: pytest.fail("weighed again"))
    again = compress(tuned("lora").folder, CHAIN, out=out, allow=True)
    assert [step.weighed for step in again.steps] == [step.weighed for step in first.steps]


@pytest.mark.slow
def test_a_chain_killed_after_a_step_goes_on_and_shares_what_begins_alike(
    chained: Any, tuned: Tuned, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(chained.folder, out)
    last = out / chained.steps[1].folder.name
    shutil.rmtree(last)
    os.mkdir(last.with_name(f".{last.name}.aside"))  # what a kill within the save leaves
    again = compress(tuned("lora").folder, CHAIN, out=out, allow=True, memory=False)
    assert again.steps[1].folder == last
    assert again.steps[1].weighed.score == chained.steps[1].weighed.score


def test_the_page_and_the_result_name_every_model(chained: Any) -> None:
    page = (chained.folder / "compress.html").read_text()
    result = json.loads((chained.folder / "compress.json").read_text())
    for step in chained.steps:
        assert step.said.replace(">", "&gt;") in page
        assert result["models"][step.name]["said"] == step.said


@pytest.mark.slow
def test_a_step_that_answers_otherwise_is_refused_and_leaves_nothing(tuned: Tuned, tmp_path: Path) -> None:
    strict: dict[str, Any] = {"out": tmp_path, "alike": 1.0, "lost": -1.0, "memory": False}
    with pytest.raises(NotSupported) as error:
        compress(tuned("full").folder, "round(bits=2)", **strict)
    told(error, "round(bits=2)", "accuracy goes from", "is not kept", "gentler")
    assert not list(tmp_path.glob("1-*"))
    (kept,) = compress(tuned("full").folder, "round(bits=2)", **strict, allow=True).steps
    with pytest.raises(NotSupported, match="What was kept before stays in"):
        compress(tuned("full").folder, "round(bits=2)", **strict)
    assert load(kept.folder).predict(["it was allowed once"])


@pytest.mark.slow
def test_a_budget_that_no_model_meets_names_the_nearest(chained: Any, tuned: Tuned) -> None:
    with pytest.raises(WontFit) as error:
        compress(tuned("lora").folder, CHAIN, out=chained.folder, allow=True, memory=False, budget="size 50")
    told(error, "size 50", "nearest", "penjing list compressors", "compress.html")


def weight(speed: float, mib: float, lost: float) -> Weighed:
    times = {"1": 1.0, "32": 1.0}
    return Weighed(int(mib * 2**20), 1, times, times, speed, 1.0, 0.9, None, {}, None, lost)


def test_the_fastest_within_the_budget_is_advised_else_the_nearest() -> None:
    first = weight(1.0, 80, 0.0)
    made = {"a": weight(2, 40, 0.001), "b": weight(4, 20, 0.008), "c": weight(9, 10, 0.05)}
    for budget, chosen, met in (
        ("lose 1, speed 3", "b", True),
        ("lose 0.5", "a", True),
        ({"mib": 12}, "c", True),
        ("lose 1, speed 5", "b", False),
    ):
        advice = advise(made, first, read(budget), list(made), best="accuracy")
        assert advice is not None
        assert (advice.chosen, advice.met) == (chosen, met)
    assert advise(made, first, {}, [], best="accuracy") is None


def test_points_of_a_score_that_is_no_share_are_percent_of_the_originals() -> None:
    first, one = weight(1.0, 80, 0.0), weight(2, 40, 0.018)  # the original's score is .9
    assert points(one, first, "accuracy") == pytest.approx(1.8)
    assert points(one, first, "bleu") == pytest.approx(2.0)
    asked = {
        name: advise({"a": one}, first, read("lose 1.9"), ["a"], best=name) for name in ("accuracy", "bleu")
    }
    assert [a is not None and a.met for a in asked.values()] == [True, False]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("int9", ["int9", "int8"]),
        ("round(bits=)", ["round"]),
        ("round[4]", ["round[4]"]),
        ("", ["--with"]),
        ("int8(kep=[])", ["kep", "keep"]),
        ("gptq(rows=0)", ["`gptq.rows` counts rows", "it is 0", "256 is usual"]),
        ("prune_ffn(rows=-1)", ["`prune_ffn.rows` counts rows", "it is -1"]),
    ],
)
def test_steps_that_are_written_otherwise_are_refused(text: str, parts: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        steps.build(steps.read(text))
    told(error, *parts)


def test_what_a_file_of_steps_says_beside_them_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("run: runs/a\nwith: [int8]\nbudget: {lose: 1}\n")
    with pytest.raises(SpecError) as error:
        steps.read(tmp_path / "c.yaml")
    told(error, "c.yaml", "`budget` beside them would be ignored", "give `--budget`")


def test_a_sign_within_quotes_is_a_settings_own() -> None:
    (step,) = steps.read("trim_vocabulary(text='lang=zh/a=b.txt', common=3)")
    assert (step.settings["text"], step.settings["common"]) == ("lang=zh/a=b.txt", 3)


def test_steps_read_from_a_line_a_list_and_a_file_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("with:\n- trim_vocabulary\n- round: {bits: 4, keep: [a>b]}\n")
    line = steps.read('trim_vocabulary > round(bits=4, keep=["a>b"])')
    assert line == steps.read(["trim_vocabulary", {"round": {"bits": 4, "keep": ["a>b"]}}])
    assert line == steps.read(tmp_path / "c.yaml")
    assert steps.said(line) == 'trim_vocabulary>round(bits=4, keep=["a>b"])'


@pytest.mark.parametrize(
    "budget", ["spede 3", "speed", "lose x", {"lose": -1}, {"lose": "much"}, "lose 1, lose 3"]
)
def test_budgets_that_say_nothing_are_refused(budget: Any) -> None:
    with pytest.raises(SpecError) as error:
        read(budget)
    told(error, "budget")


def test_a_share_that_no_model_reaches_is_refused() -> None:
    for job in (compress, plan):
        with pytest.raises(SpecError, match="asks for 9900"):
            job("nowhere", "int8", alike=99.0)


def test_a_place_that_cannot_be_written_is_told(tuned: Tuned, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file was to be written"):
        compress(tuned("full").folder, "int8", out=tmp_path / "file")


def test_one_row_cannot_be_looked_at_and_judged_on(tuned: Tuned, tmp_path: Path) -> None:
    alone, one = shutil.copytree(tuned("full").folder / "best", tmp_path / "bundle"), tmp_path / "one.csv"
    one.write_text(f"text,label\nlate,{load(alone).labels[0]}\n")
    with pytest.raises(DataError) as error:
        compress(alone, "int8", out=tmp_path, rows=one)
    told(error, "no train rows are known", "`rows` holds 1", "Give two or more")


@pytest.mark.slow
def test_what_cannot_be_compressed_is_refused(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(NotSupported) as error:
        compress(tuned("adapter").folder, "int8", out=tmp_path)
    told(error, "adapter", "One set of weights", "lora")
    alone = shutil.copytree(tuned("full").folder / "best", tmp_path / "bundle")
    with pytest.raises(DataError) as missing:
        compress(alone, "int8", out=tmp_path)
    told(missing, "lies in no run", "--rows")


def test_the_command_tells_what_it_would_do_and_does_nothing(tuned: Tuned, tmp_path: Path) -> None:
    command = [
        "compress",
        str(tuned("full").folder),
        "--with",
        "int8",
        "-o",
        str(tmp_path / "c"),
        "--dry-run",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "1-int8-" in done.output
    assert "1. int8(" in done.output
    assert "{" not in done.output
    assert "to be made" in done.output
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_pruned_model_is_healed_by_the_one_the_chain_began_from(tuned: Tuned, tmp_path: Path) -> None:
    chain = "prune_heads(share=0.5, even=false)>magnitude>distill(layers=all, epochs=1)"
    found = compress(tuned().folder, chain, out=tmp_path, allow=True, memory=False)
    run = found.steps[-1].folder.parent
    assert found.steps[-1].name == run.name
    said = yaml.safe_load((run / "spec.yaml").read_text(encoding="utf-8"))
    teacher = {**said["techniques"][0]["distill"]}["teacher"]
    assert Path(teacher).samefile(tuned().folder / "best")
    pruned, healed = (load(step.folder).base.trunk for step in found.steps[1:])
    for name in linears_of(pruned):
        before, after = (one.get_submodule(name).weight for one in (pruned, healed))
        assert not after[before == 0].any()
        assert not torch.equal(before, after)


@pytest.mark.slow
def test_steps_that_train_are_told_apart_and_one_that_is_refused_keeps_its_training(
    tuned: Tuned, tmp_path: Path
) -> None:
    run, chain = tuned().folder, "distill(layers=1, epochs=1)>distill(layers=all, epochs=1, lr=1e-4)"
    how: dict[str, Any] = {"out": tmp_path, "memory": False}
    assert [step["done"] for step in plan(run, chain, out=tmp_path)] == [False, False]
    with pytest.raises(NotSupported) as error:
        compress(run, chain, **how, lost=-1.0)
    first = next(tmp_path.glob("1-distill-*"))
    told(error, "accuracy goes from", f"What was trained stays in {first}", "--allow")
    made = (first / "result.json").stat().st_mtime_ns
    found = compress(run, chain, **how, allow=True)
    assert (first / "result.json").stat().st_mtime_ns == made  # not trained again
    assert {*found.result["models"]} == {step.name for step in found.steps}
    assert len(found.result["models"]) == 2
    assert [step["done"] for step in plan(run, chain, out=tmp_path)] == [True, True]
    second = compress(run, "distill(layers=1, epochs=1)", **how, allow=True).result
    assert {*second["models"]} == {step.name for step in found.steps}
    assert second["models"][found.steps[1].name]["folder"] == str(found.steps[1].folder)
