"""A whole search over tiny BERT: what it leaves, how it stops, resumes and refuses."""

import json
import multiprocessing
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from conftest import tickets
from penjing import Run, load, tune
from penjing.chains import search as chain
from penjing.chains import trial as trials
from penjing.chains.combine import Candidate
from penjing.chains.search import resume, search
from penjing.chains.words import WORDS
from penjing.errors import NotSupported, SpecError, TrainingFailed, WontFit
from searches import asked, decisions, lines

pytestmark = pytest.mark.slow  # every test is a search


@pytest.fixture(scope="module")
def found(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished search. Only read it."""
    return search(asked(tiny, tmp_path_factory.mktemp("search")), name="found")


def test_a_search_leaves_the_winner_proved_on_test_rows(found: Run) -> None:
    assert found.state == "done"
    assert found.result["splits_scored"] == "test"
    assert {"after", "baseline", "before"} <= found.result.keys()
    assert found.bundle.predict(["my card was charged twice"])[0]["label"] in found.result["labels"]
    chosen = found.read("search.json")
    best = Run(found.folder / "trials" / f"{chosen['trial']:03d}")
    assert found.spec.written() == {**best.spec.written(), "name": "found", "out": found.spec.out}


def test_halving_carries_every_trial_to_the_first_rung_and_the_better_half_on(found: Run) -> None:
    ended = [line["ended"] for line in lines(found) if "ended" in line]
    first = {one["trial"]: one["score"] for one in ended if one["rung"] == 0}
    whole = {one["trial"] for one in ended if one["rung"] == 1}
    assert len(first) == 4
    assert len(whole) == 2
    assert all((one["step"], one["steps"]) == ((2, 4) if one["rung"] == 0 else (4, 4)) for one in ended)
    assert max(first.values()) in [first[trial] for trial in whole]
    assert {len(Run(found.folder / "trials" / f"{t:03d}").lines("log.jsonl")) for t in whole} == {4}


def test_no_trial_is_scored_on_test_rows(found: Run) -> None:
    folders = sorted((found.folder / "trials").iterdir())
    assert len(folders) == 4
    for folder in folders:
        assert not (folder / "result.json").exists()
        assert {line["split"] for line in Run(folder).lines("scores.jsonl")} == {"valid"}


def test_the_page_tells_every_trial_and_reaches_for_nothing(found: Run) -> None:
    page = (found.folder / "search.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not [word for word in ("<script", "http://", "https://", " src=") if word in page]
    assert page.count("<circle") >= 4 * 4  # four figures of four trials
    for settings in {line["begun"]: line["settings"] for line in lines(found) if "begun" in line}.values():
        assert f"train.lr {settings['train.lr']}" in page
    assert f"penjing tune {found.folder / 'spec.yaml'}" in page


def test_the_page_speaks_both_languages_of_one_mind() -> None:
    english, chinese = WORDS["en"], WORDS["zh"]
    assert english.keys() == chinese.keys()
    blanks = re.compile(r"{\w+}")
    for key, words in english.items():
        assert sorted(set(blanks.findall(words))) == sorted(set(blanks.findall(chinese[key]))), key


def test_what_repeats_the_winner_gives_its_weights(found: Run, tmp_path: Path) -> None:
    again = tune(found.folder / "spec.yaml", sets=("name=again", f"out={tmp_path}"))
    heads = [load_file(run.folder / "best" / "head.safetensors") for run in (again, found)]
    assert heads[0].keys() == heads[1].keys()
    banked = found.spec.method.settings.get("layers") == 0  # heads of one bank are as heads alone to rounding
    near = {"rtol": 1e-4, "atol": 1e-6} if banked else {"rtol": 0, "atol": 0}
    for key, weight in heads[0].items():
        torch.testing.assert_close(weight, heads[1][key], **near)


@pytest.mark.parametrize("task", ["chat", "prefer"])
def test_where_lower_is_better_the_lowest_wins_and_the_page_says_plain_numbers(
    task: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Neither task has a cheap baseline, and `prefer` compares no two models row by row."""

    def row(i: int) -> dict[str, Any]:
        asked = {"role": "user", "content": f"order {i}"}
        good, bad = ({"role": "assistant", "content": f"{word} {i}"} for word in ("lost in", "fee fee"))
        if task == "chat":
            return {"messages": [asked, good]}
        return {"prompt": [asked], "chosen": [good], "rejected": [bad]}

    for name, rows in (("train", range(24)), ("valid", range(24, 32))):
        text = "".join(json.dumps(row(i)) + "\n" for i in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    values = {
        "base": str(tiny("qwen3")),
        "task": {task: {"template": "chatml", "max_new": 4}},
        "method": "lora",
        "data": {"train": str(tmp_path / "train.jsonl"), "valid": str(tmp_path / "valid.jsonl")},
        "train": {"steps": 6, "evals": 1, "batch": 8, "lr": {"choose": [1e-5, 3e-3]}},
        "search": {"trials": 2, "sampler": "grid", "first_share": 1.0},
        "device": "cpu", "precision": "fp32", "out": str(tmp_path / "runs"),
    }  # fmt: skip
    said: list[str] = []
    run = search(values, tell=lambda news: said.append(news.text))
    found = run.read("search.json")
    losses = {one["trial"]: -one["score"] for one in found["trials"]}
    assert found["trial"] == min(losses, key=lambda trial: losses[trial])
    alone = tune(Run(run.folder / "trials" / f"{found['trial']:03d}").spec, name="alone")
    for one in (run, alone):  # each trial has a head of its own, that of its base's words
        assert one.result["after"]["values"]["loss"] <= min(losses.values()) + 1e-4
    assert any(f"trial 1: {losses[1]:.4f} after" in text for text in said)
    page = (run.folder / "search.html").read_text(encoding="utf-8")
    assert f"{losses[1]:.3f}" in page
    assert f"{100 * losses[1]:.1f}\u00a0%" not in page
    assert ("compares no two models" in " ".join(said)) == (task == "prefer")


def test_a_trial_paused_at_a_rung_equals_one_never_paused(found: Run) -> None:
    """The schedule is that of the whole trial from the first step on."""
    whole = max(line["ended"]["trial"] for line in lines(found) if line.get("ended", {}).get("rung") == 1)
    log = Run(found.folder / "trials" / f"{whole:03d}").lines("log.jsonl")
    peak = max(line["lr"] for line in log)
    assert [line["lr"] / peak for line in log] == pytest.approx([1, 0.75, 0.5, 0.25], abs=0.26)
    assert [line["step"] for line in log] == [1, 2, 3, 4]


def test_trials_share_rows_tokens_and_base(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"rows_of": 0, "load_base": 0, "parts_of": 0}
    for name in calls:
        real = getattr(trials, name)

        def counted(*args: Any, name: str = name, real: Any = real) -> Any:
            calls[name] += 1
            return real(*args)

        monkeypatch.setattr(trials, name, counted)
    search(asked(tiny, tmp_path))
    assert calls == {"rows_of": 1, "load_base": 1, "parts_of": 1}


def test_a_stopped_search_resumes_and_decides_as_one_never_stopped(
    tiny: Callable[..., Path], tmp_path: Path, found: Run
) -> None:
    left = [3]

    def tell(news: Any) -> None:
        if news.kind == "score" and news.text.startswith("trial"):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(asked(tiny, tmp_path), name="found", tell=tell)
    folder = tmp_path / "runs" / "found"
    before = (folder / "search.jsonl").read_text()
    (folder / "search.jsonl").write_text(before + '{"begun": 3, "ru')  # and torn by a kill
    (folder / "trials" / "003").mkdir(exist_ok=True)  # that came before anything stood in the trial's folder
    rows = (tmp_path / "train.csv").read_text()
    (tmp_path / "train.csv").write_text(rows.replace("twice", "thrice"))
    with pytest.raises(NotSupported, match=r"rows of `data\.train` .* are not those that .*trials/000 began"):
        resume(folder)
    (tmp_path / "train.csv").write_text(rows)
    space = (folder / "search.yaml").read_text()
    (folder / "search.yaml").write_text(space + "seed: {int: [0, 9]}\n")
    with pytest.raises(NotSupported, match=r"now asks for `seed` otherwise. Put the space back"):
        resume(folder)
    (folder / "search.yaml").write_text(space)
    first = folder / "trials" / "000" / "lineage.json"
    lineage = first.read_text()
    sha = json.loads(lineage)["base"]["sha256"]
    first.write_text(lineage.replace(sha, "0" * 64))
    with pytest.raises(
        NotSupported, match=r"is not the one that .*trials/000 began with.* Put the old one back"
    ):
        resume(folder)
    first.write_text(lineage)
    done = resume(out=str(tmp_path / "runs"))
    assert done.folder == folder
    assert (folder / "search.jsonl").read_text().startswith(before)
    assert decisions(done) == decisions(found)
    with pytest.raises(NotSupported, match="it is done"):
        resume(folder)


def test_a_killed_search_resumes_without_repeating_finished_trials(
    tiny: Callable[..., Path], tmp_path: Path, found: Run
) -> None:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["penjing.chains.search", "transformers.models.bert.modeling_bert", "peft"])
    going = forks.Process(target=search, args=(asked(tiny, tmp_path),), kwargs={"name": "found"})
    journal = tmp_path / "runs" / "found" / "search.jsonl"
    for wanted in (2, 5, 8):
        going.start()
        while going.is_alive() and not (journal.is_file() and journal.read_bytes().count(b"\n") >= wanted):
            time.sleep(0.01)
        going.kill()
        going.join()
        going = forks.Process(target=resume, args=(journal.parent,))
    finished = journal.read_text()[: journal.read_text().rfind("\n") + 1]
    done = resume(journal.parent)
    assert journal.read_text().startswith(finished), "what was finished was not done again"
    assert decisions(done) == decisions(found)
    legs = [(line["ended"]["trial"], line["ended"]["rung"]) for line in lines(done) if "ended" in line]
    assert len(legs) == len(set(legs))


def test_beaten_trials_leave_no_saved_state_and_what_was_freed_is_told(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    told: list[str] = []
    far: list[tuple[int, int]] = []

    def tell(news: Any) -> None:
        told.append(news.text)
        if "parts of trials" in news.text:
            far.append((news.done, news.total))

    run = search(asked(tiny, tmp_path), tell=tell)
    assert far == [(n, 6) for n in range(1, 7)]  # four trials, and two of them to the end
    kept = [path.parent.name for path in (run.folder / "trials").glob("*/last")]
    assert kept == [f"{run.read('search.json')['trial']:03d}"]
    assert any(
        re.fullmatch(r"[\d.]+ MiB freed: saved states of trials that were beaten", text) for text in told
    )


def test_folds_give_a_mean_and_a_spread_and_a_winner_trained_on_all_rows(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    values = asked(tiny, tmp_path, method="bitfit")
    values["search"] |= {"trials": 2, "folds": 2, "combine": True}
    run = search(values)
    ended = [line["ended"] for line in lines(run) if "ended" in line]
    parts = [Run(run.folder / "trials" / f"{ended[-1]['trial']:03d}-fold{k}") for k in (1, 2)]
    best = [max(line["values"]["accuracy"] for line in part.lines("scores.jsonl")) for part in parts]
    assert ended[-1]["score"] == pytest.approx(np.mean(best))
    assert ended[-1]["spread"] == pytest.approx(np.std(best, ddof=1))
    assert (run.folder / "trials" / "winner" / "last").is_dir()
    names = {one["name"] for one in run.read("search.json")["candidates"]}
    assert {"winner", "folds, mean", "folds, vote"} <= names


def test_where_another_seed_wins_the_spec_repeats_that_one(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Candidate, "better", property(lambda one: one.name == "seed-1"))
    values = asked(tiny, tmp_path, method="bitfit")
    values["search"] |= {"trials": 2, "seeds": 2}
    run = search(values)
    assert run.read("search.json")["chosen"]["members"] == ["seed-1"]
    assert run.spec.seed == 1
    head = "best/head.safetensors"
    assert (run.folder / head).read_bytes() == (run.folder / "trials" / "seed-1" / head).read_bytes()


def test_rows_that_are_read_in_windows_have_folds_too(tiny: Callable[..., Path], tmp_path: Path) -> None:
    values = asked(tiny, tmp_path, method="bitfit", task="tag")
    rows = [{"text": text, "entities": [{"start": 0, "end": 3, "label": "head"}]} for text, _ in tickets(60)]
    (tmp_path / "tag.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values |= {"data": {"train": str(tmp_path / "tag.jsonl"), "valid_share": 0.3}}
    values["search"] |= {"trials": 1, "folds": 2}
    run = search(values)
    (ended,) = (line["ended"] for line in lines(run) if line.get("ended", {}).get("step") == 4)
    assert ended["spread"] is not None
    assert run.result["best_name"] == "micro_f1"


def test_targets_that_match_nothing_fail_that_trial_and_not_the_search(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    values = asked(tiny, tmp_path)
    values["method"] = {"choose": [{"lora": {"targets": ["nothing"]}}, "bitfit"]}
    values["train"]["lr"] = 1e-2
    run = search(values)
    ended = [line["ended"] for line in lines(run) if "ended" in line]
    reasons = [one["failed"] for one in ended if one["failed"]]
    assert len(reasons) == 1
    assert "nothing" in reasons[0]
    assert run.spec.method.name == "bitfit"


def test_when_every_trial_fails_the_first_reason_is_told(tiny: Callable[..., Path], tmp_path: Path) -> None:
    values = asked(tiny, tmp_path, method={"lora": {"targets": ["nothing"]}})
    with pytest.raises(TrainingFailed, match=r"All 4 trials of the search failed.*nothing"):
        search(values)


def test_a_time_limit_too_short_for_one_trial_is_told_before_any(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    values = asked(tiny, tmp_path, name="short")
    values["train"]["steps"] = 100_000
    values["search"] |= {"minutes": 0.05}
    with pytest.raises(WontFit, match=r"`search.minutes` is 0.05; one whole trial should take about"):
        search(values)
    assert not (tmp_path / "runs" / "short" / "trials").exists()


def test_a_time_limit_ends_the_search_with_what_is_finished(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_whole_trial_s", lambda *args: 0.0)
    monkeypatch.setattr(chain, "_left_s", lambda asked, spent: 0.0)
    values = asked(tiny, tmp_path)
    values["search"] |= {"at_once": 1}
    run = search(values)
    assert [line["ended"]["rung"] for line in lines(run) if "ended" in line] == [
        0
    ]  # times are known after it
    assert run.state == "done"
    assert load(run.folder).labels


def test_no_more_trials_begin_at_once_than_the_time_allows(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "forecast_s", lambda *args: 25.0)
    values = asked(tiny, tmp_path)
    values["search"] |= {"at_once": 4, "first_share": 1.0, "minutes": 1}
    kinds = ["ended" if "ended" in line else "begun" for line in lines(search(values))[1:]]
    assert kinds[:3] == ["begun", "begun", "ended"]
    assert kinds.count("begun") == 4  # the first to end took less than was forecast


def test_another_folder_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"A search was wanted in .*no search\.yaml"):
        resume(tmp_path)
    with pytest.raises(NotSupported, match="there is none that no process holds"):
        resume(out=str(tmp_path))


def test_a_spec_file_is_a_search_too(tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(asked(tiny, tmp_path, method="bitfit")))
    with pytest.raises(SpecError, match=r"search\.trials"):
        search(tmp_path / "space.yaml", sets=("search.trials=0",))
    assert json.dumps(chain.questions.read(tmp_path / "space.yaml").written())
