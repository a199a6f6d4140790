"""Plans of specs and questions, audits of what came of them, and laws from a table."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from penjing import spec as specs
from penjing.cli import app
from penjing.data.feed import feed_of
from penjing.errors import DataError, SpecError, WontFit
from penjing.jobs import advise as advising
from penjing.jobs.advise import advise
from penjing.jobs.audit import audit
from penjing.jobs.bases import base_of
from penjing.jobs.feeding import texts_of
from penjing.jobs.fitted import fit_file
from penjing.jobs.plan import plan
from penjing.jobs.prepare import NO_DATA, bound, task_of
from penjing.jobs.sampled import of_corpus
from penjing.models.laws import DATA_CONSTRAINED
from penjing.models.sizing import Pace, Shape
from penjing.run import new

Tiny = Callable[..., Path]
PACE = Pace((Shape(128, 1e-3, 2e10), Shape(512, 4e-3, 4e10)), 2e-9)


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known pace."""
    monkeypatch.setattr(advising, "pace_of", lambda machine: PACE)
    monkeypatch.setattr(advising, "TO_TUNE", ("bert-tiny", "minilm"))
    monkeypatch.setitem(advising.TO_GROW, "masked", ("bert-tiny", "bert-mini"))


def planned(tiny: Tiny, tiny_csv: Path, **more: Any) -> Any:
    keys = {"base": str(tiny("bert")), "train": str(tiny_csv), "device": "cpu", "precision": "fp32", **more}
    return plan(**keys)


def test_a_plan_says_what_a_job_takes_and_that_it_fits(tiny: Tiny, tiny_csv: Path) -> None:
    found = planned(tiny, tiny_csv, steps=10)
    assert found.way.fits
    assert found.cheaper == ()
    assert found.steps == 10
    assert 0 < found.way.seconds < found.way.most_s
    assert 0 < found.way.mib < found.way.most_mib
    found.refuse()


@pytest.mark.parametrize(("task", "taken", "asked"), [("masked", 2, 0.15), ("contrastive", 2, 0.0)])
def test_a_pretraining_is_planned_by_the_pieces_of_its_corpus(
    tiny: Tiny, tmp_path: Path, task: str, taken: int, asked: float
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"my parcel {i} is late and the invoice is wrong" for i in range(90)))
    said = {task: {"repeat": 0}} if task == "contrastive" else task
    keys = {"base": str(tiny("bert")), "train": str(corpus), "task": said, "batch": 8, "steps": 10}
    spec = specs.read(**keys, device="cpu", precision="fp32")
    found = plan(spec)
    assert found.way.fits
    kept = sum(1 for _ in texts_of(spec).train())  # some are held out
    assert (found.rows, found.unit, found.steps) == (kept, "pieces", 10)
    base = base_of(spec, "meta")
    seen = of_corpus(spec, bound(task_of(spec), base, NO_DATA), base, texts_of(spec))
    lengths = seen.tokens.lengths if task == "masked" else seen.tokens.lengths / 2
    assert lengths.mean() == pytest.approx(np.diff(a_feed(spec, base).starts).mean() + taken, rel=0.01)
    assert found.tokens == pytest.approx(10 * 8 * seen.tokens.lengths.mean())
    assert seen.asked == pytest.approx(asked * (1 - taken / lengths.mean()), abs=0.03)


def a_feed(spec: Any, base: Any) -> Any:
    feed = bound(task_of(spec), base, NO_DATA).feed
    return feed_of(texts_of(spec).train, base.tokenizer, feed, key="", cache=False)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_does_not_fit_comes_with_ways_that_do(tiny: Tiny, tiny_csv: Path) -> None:
    asked = planned(tiny, tiny_csv)
    found = planned(tiny, tiny_csv, memory_gib=(asked.way.most_mib - 0.01) / 1024)
    assert not found.way.fits
    fitting = [way for way in found.cheaper if way.fits]
    assert fitting
    assert all(way.most_mib <= found.free_mib for way in fitting)
    with pytest.raises(WontFit, match=r"takes about .* MiB.*Try `--set "):
        found.refuse()


@pytest.mark.slow
def test_a_plan_where_nothing_fits_says_so(tiny: Tiny, tiny_csv: Path) -> None:
    found = planned(tiny, tiny_csv, memory_gib=1e-6)
    assert not any(way.fits for way in found.cheaper)
    with pytest.raises(WontFit, match="smaller base"):
        found.refuse()


@pytest.mark.slow
def test_advice_keeps_to_the_time_and_the_memory() -> None:
    found = advise(rows=20_000, tokens=30, minutes=30, device="cpu", precision="fp32", memory_gib=4)
    assert found.take is not None
    for one in found.options:
        assert one.fits == (one.most_mib <= 4096 and one.most_s <= 1800)
    taken = next(one for one in found.options if one.fits and one.base == "minilm")
    assert found.spec is not None
    assert found.spec["train"] == {"batch": taken.batch, "steps": taken.steps}
    specs.read({**found.spec, "data": {"train": "rows.csv"}})


@pytest.mark.slow
def test_more_time_never_advises_less_training() -> None:
    steps = [
        advise(rows=5000, minutes=m, device="cpu", precision="fp32", memory_gib=8).options[0].steps
        for m in (2, 10, 80)
    ]
    assert steps == sorted(steps)


@pytest.mark.slow
def test_nothing_that_fits_is_a_refusal_with_the_least_there_is() -> None:
    found = advise(rows=1_000_000, tokens=200, minutes=0.01, device="cpu", precision="fp32")
    with pytest.raises(WontFit, match="Nothing fits cpu"):
        found.refuse()


@pytest.mark.parametrize(("corpus", "short"), [(1e5, "data is short"), (1e9, "time is short")])
def test_pretraining_is_told_what_is_short_and_the_loss_of_the_law(corpus: float, short: str) -> None:
    found = advise(corpus_tokens=corpus, minutes=60, device="cpu", precision="fp32", memory_gib=16)
    best = next(one for one in found.growths if one.base == found.take)
    assert best.loss == min(one.loss for one in found.growths if one.fits)
    assert best.loss == DATA_CONSTRAINED.loss(best.parameters, best.tokens, corpus)
    assert any(short in sentence for sentence in found.why), found.why


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "labelled rows or for a corpus"),
        ({"rows": 5, "corpus_tokens": 1e6}, "Give one"),
        ({"corpus_tokens": 1e6}, "`minutes` is not given"),
        ({"rows": -5}, "`rows` must be above 0"),
        ({"corpus_tokens": 1e6, "minutes": 1, "objective": "mask"}, "`objective` must be one of"),
    ],
)
def test_a_question_without_an_answer_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        advise(**asked)


def finished(
    folder: Path, name: str, seconds: float, mib: float, *, steps: int = 100, asked: int = 100
) -> None:
    run = new(specs.read(train="rows.csv", out=str(folder), name=name))
    run.write("start.json", {"steps": 100, "forecast": {}})
    cost = {"steps": steps, "seconds": seconds, "peak_mib": mib, "forecast_s": 10.0, "forecast_mib": 1000.0}
    run.write("result.json", {"state": "done", "cost": cost})


@pytest.mark.slow
def test_an_audit_holds_truth_against_forecast_worst_first(tmp_path: Path) -> None:
    finished(tmp_path, "right", 10.0, 1000.0)
    finished(tmp_path, "slow", 20.0, 1050.0)
    finished(tmp_path, "half", 5.0, 900.0, steps=50)  # stopped early: half the forecast is meant
    new(specs.read(train="rows.csv", out=str(tmp_path), name="open"))
    found = audit(tmp_path)
    assert [one.run for one in found.runs] == ["slow", "half", "right"]
    assert {one.run: one.time for one in found.runs} == {"slow": 2.0, "half": 1.0, "right": 1.0}
    assert found.unfinished == 1
    assert found.ratios("time")["50%"] == 1.0
    assert found.ratios("time")["within"] == pytest.approx(2 / 3)
    assert found.ratios("memory")["within"] == 1.0


def test_an_audit_of_nothing_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is none"):
        audit(tmp_path / "nowhere")
    with pytest.raises(DataError, match="No finished run"):
        audit(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no runs"),
        ("parameters,token,loss\n1,2,3\n", "a column `tokens` was wanted.*Did you mean `token`"),
        ("parameters,tokens,loss\n1e8,many,3\n", "line 2: `tokens` must be a number; it is 'many'"),
    ],
)
def test_a_table_that_holds_no_runs_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        fit_file(path)


def said_by(*words: str) -> Any:
    return CliRunner().invoke(app, ["plan", *words])


@pytest.mark.slow
def test_the_verb_prints_tables_and_json(tmp_path: Path) -> None:
    finished(tmp_path, "right", 10.0, 1000.0)
    assert "within 25%" in said_by("--audit", str(tmp_path)).output
    told = json.loads(said_by("--audit", str(tmp_path), "--json").output)
    assert told["runs"][0]["memory"] == 1.0
    question = said_by("--rows", "500", "--minutes", "60", "--device", "cpu", "--json")
    assert question.exit_code == 0, question.output
    assert json.loads(question.output)["take"].startswith("minilm")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "neither is given"),
        (("--rows", "5", "--method", "lora"), "does not use --method"),
        (("--minutes", "5", "--method", "lora"), "does not use --minutes"),
        (("--audit", "runs", "--rows", "5"), "does not use --rows"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words: tuple[str, ...], said: str) -> None:
    done = said_by(*words)
    assert done.exit_code == 1
    assert said in done.output


def test_a_peak_of_an_earlier_process_is_kept(tmp_path: Path) -> None:
    from penjing.jobs.training import Watch

    assert Watch(**vars(SimpleNamespace(step=3, peak_mib=900.0))).peak_mib == 900.0
