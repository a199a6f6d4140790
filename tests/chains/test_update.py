"""Rounds of updates: a better model goes live, a poisoned one does not, and nothing is half done."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from common import told
from conftest import tickets
from penjing import load, tune
from penjing.chains import rounds
from penjing.chains.gate import measure
from penjing.chains.update import split, update
from penjing.chains.update_spec import read
from penjing.cli import app
from penjing.data.parts import rows_of
from penjing.data.read import read as read_rows
from penjing.errors import DataError, NotSupported, PenjingError, SpecError
from penjing.jobs.news import News
from penjing.run import Run
from penjing.serve import registry
from penjing.serve.traffic import Traffic

# At 100 steps the rounding of other threads once left a new label known by 16 of 18 rows.
LEARN = {"steps": 150, "lr": 0.003, "evals": 2}


def cancels(n: int, start: int = 0) -> list[tuple[str, str]]:
    """A new intent in a few forms."""
    forms = ("please cancel my order {}", "stop the order {} now", "i do not want order {} any more")
    return [(forms[i % 3].format(i), "cancel") for i in range(start, start + n)]


def put(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def grown(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that knows four intents, and its files."""
    folder = tmp_path_factory.mktemp("grown")
    rows = tickets(360)
    files = {"old": put(folder / "old.csv", rows[:240]), "test": put(folder / "test.csv", rows[240:])}
    run = tune(
        base=tiny("bert"),
        train=files["old"],
        method="full",
        device="cpu",
        precision="fp32",
        out=folder,
        **LEARN,
    )
    assert run.result["after"]["values"]["accuracy"] > 0.9
    return {"run": run, **files, "must_pass": put(folder / "must.csv", rows[:6])}


@pytest.fixture
def asked(grown: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """An update of it in a registry of the test's own, with 90 new rows of feedback."""
    return asking(tmp_path, grown["run"].folder) | {key: grown[key] for key in ("old", "test", "must_pass")}


@pytest.fixture
def small(tuned: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """The same of a model that hardly learned, for what comes before a round."""
    rows = put(tmp_path / "rows.csv", tickets(90))
    return asking(tmp_path, tuned("lora").folder) | {"old": rows, "test": rows}


def asking(folder: Path, run: Path) -> dict[str, Any]:
    registry.add(folder / "models", "desk", run)
    fill(folder, cancels(90))
    return {
        "model": str(folder / "models" / "desk"),
        "traffic": str(folder / "traffic.db"),
        "out": str(folder / "updates"),
        "train": LEARN,
        "replay": 2,
        "gate": {"slower_by": 5.0, "worse_by": 0.05},
    }


def fill(folder: Path, rows: list[tuple[str, str]], *, prefix: str = "r") -> None:
    with Traffic(str(folder / "traffic.db")) as traffic:
        for i, (text, label) in enumerate(rows):
            id = f"{prefix}{i}"
            traffic.record(id, text, {"label": "billing", "confidence": 0.4}, model="desk", version=1)
            traffic.feedback(id, label)


def failed(done: Any) -> list[Any]:
    """Bars of a round that were not reached, for a test's message."""
    return [bar for bar in done.bars if not bar.passed]


def live(asked: dict[str, Any]) -> int | None:
    place = Path(asked["model"])
    return registry.read_route(place.parent, place.name).live


@pytest.mark.slow
def test_a_better_model_goes_live_knows_the_new_label_and_is_rolled_back_by_one_command(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    done = update(asked)
    assert (done.what, done.version, live(asked)) == ("promoted", 2, 2), failed(done)
    folder = tmp_path / "models" / "desk" / "2"
    card = json.loads((folder / "card.json").read_text())
    assert card["labels"] == ["account", "billing", "delivery", "cancel"]
    assert (folder / "golden.json").is_file()
    lineage = json.loads((tmp_path / "updates" / "1" / "run" / "lineage.json").read_text())
    assert lineage["parent"]["folder"] == str(tmp_path / "models" / "desk" / "1")
    assert update(asked).what == "waiting", "no row is learned twice"
    assert rounds.standing_rounds(tmp_path / "updates", 2) == [1]
    done = CliRunner().invoke(app, ["roll-back", str(tmp_path / "models" / "desk")])  # as `watch` takes it
    assert (done.output.strip(), live(asked)) == ("desk: live 1", 1)


@pytest.mark.slow
def test_a_poisoned_round_is_stopped_and_the_live_model_stays(asked: dict[str, Any], tmp_path: Path) -> None:
    draw = random.Random(0)
    wrong = [(text, draw.choice(["billing", "delivery"]) if i % 5 == 0 else label)
             for i, (text, label) in enumerate(cancels(150, 1000))]  # fmt: skip
    fill(tmp_path, wrong, prefix="p")
    spec = tmp_path / "update.yaml"
    spec.write_text(json.dumps({**asked, "traffic": None, "new": put(tmp_path / "new.csv", wrong)}))
    done = CliRunner().invoke(app, ["update", str(spec), "--json"])
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    not_reached = [bar["name"] for bar in found["bars"] if not bar["passed"]]
    assert "share right of new rows" in not_reached
    assert live(asked) == 1
    again = {**asked, "traffic": None, "new": str(tmp_path / "new.csv")}
    waits = update(again)
    assert waits.what == "waiting", "what was refused is not tried again as it is"
    assert "150 rows of `new` were refused in round 1, as they are" in waits.sentence
    history = CliRunner().invoke(app, ["update", str(spec), "--history"]).output
    assert "refused" in history


@pytest.mark.slow
def test_a_promotion_that_a_kill_cut_off_is_written_down_by_the_next_round(
    small: dict[str, Any], tuned: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "updates"
    (out / "1").mkdir(parents=True)
    (out / "1" / "run").symlink_to(tuned("lora").folder)
    about = {"round": 1, "said": 90, "rows": 90, "failed": [], "parent": 1}
    (out / "1" / "gate.json").write_text(json.dumps(about))
    assert update(small).what == "waiting"
    (line,) = rounds.history(out)
    assert (line["what"], line["round"], line["said"]) == ("promoted", 1, 90)


@pytest.mark.slow
def test_a_round_that_was_cut_off_goes_on_where_its_training_stood(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    def stop(news: News) -> None:
        if news.kind == "progress" and news.text.startswith("loss") and news.done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(asked, tell=stop)
    assert rounds.history(tmp_path / "updates") == []
    fill(tmp_path, cancels(60, 500), prefix="later")
    told: list[str] = []
    done = update(asked, tell=lambda news: told.append(news.text))
    assert (done.number, done.what, live(asked)) == (1, "promoted", 2), failed(done)
    assert any("round 1 was cut off and goes on" in text for text in told)
    log = Run(tmp_path / "updates" / "1" / "run").lines("log.jsonl")
    assert [line["step"] for line in log] == [*range(1, LEARN["steps"] + 1)]
    (line,) = rounds.history(tmp_path / "updates")
    assert (line["rows"], line["said"]) == (90, 90)
    again = update({**asked, "least_new": 61})
    assert again.notes[0] == "60 new rows, 61 begin one"  # those that came while it was cut off


def test_a_round_is_gone_on_with_only_where_it_stands_on_the_same_and_did_not_die(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / str(number) / "run").mkdir(parents=True)
        about = {"key": rounds.key_of("a", number == 3), "said": number, "rows": 9, "parent": 1}
        (tmp_path / str(number) / rounds.BEGUN).write_text(json.dumps(about))
    kept = {"rows": 9, "parent": 1}
    assert rounds.cut_off(tmp_path, rounds.key_of("a", False)) == (2, {"said": 2, **kept})
    assert rounds.cut_off(tmp_path, rounds.key_of("b", False)) is None
    (tmp_path / "2" / "run" / "spec.yaml").write_text("")
    (tmp_path / "2" / "run" / "error.txt").write_text("not finite")
    assert rounds.cut_off(tmp_path, rounds.key_of("a", False)) == (1, {"said": 1, **kept})
    rounds.note(tmp_path, {"what": "refused", "round": 1, "version": 1})
    assert rounds.cut_off(tmp_path, rounds.key_of("a", False)) is None


def test_a_model_that_the_registry_lacks_is_told_with_those_it_has(small: dict[str, Any]) -> None:
    place = Path(small["model"])
    with pytest.raises(PenjingError) as error:
        update({**small, "model": str(place.with_name("nothing"))})
    told(error, f"in the registry {place.parent}; it has {place.name}", "penjing serve NAME=RUN")


def test_feedback_of_another_store_is_read_from_its_beginning(small: dict[str, Any]) -> None:
    out = Path(small["out"])
    out.mkdir()
    for at, n in (("2020-01-01T00:00:00Z", 90), ("2099-01-01T00:00:00Z", 0)):
        line = {"at": at, "what": "refused", "round": 1, "version": 1, "said": 500}
        (out / "history.jsonl").write_text(json.dumps(line) + "\n")
        done = update({**small, "least_new": 91})
        assert done.notes[0] == f"{n} new rows, 91 begin one"
        assert any("another one than in the round before" in note for note in done.notes) == bool(n)


def test_rows_that_were_rolled_back_do_not_go_live_again_by_themselves(
    small: dict[str, Any], tmp_path: Path
) -> None:
    out, new = Path(small["out"]), put(tmp_path / "new.csv", cancels(60))
    (out / "1").mkdir(parents=True)
    bundle = load(registry.find(tmp_path / "models", "desk")[0].folder)
    rounds.write_lines(out / "1", "new_train", rounds.lines_of(bundle, read_rows(new)))
    rounds.note(out, {"what": "promoted", "round": 1, "version": 2, "parent": 1, "said": 0})  # 1 is live
    asked = {**small, "traffic": None, "new": new}
    assert "60 rows of `new` went live and were rolled back with round 1" in update(asked).sentence
    put(tmp_path / "new.csv", [*cancels(60), *cancels(1, start=60)])
    assert update({**asked, "least_new": 62}).notes[0] == "61 new rows, 62 begin one", "one was added"


def test_few_new_rows_begin_no_round(small: dict[str, Any]) -> None:
    done = update({**small, "least_new": 91})
    assert (done.what, done.notes[0]) == ("waiting", "90 new rows, 91 begin one")


def test_a_task_that_no_word_of_people_teaches_is_refused(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from penjing.chains import update as module

    found = module.load
    changes = {"name": "prefer", "teach": None}
    monkeypatch.setattr(
        module, "load", lambda *a, **k: replace(b := found(*a, **k), task=replace(b.task, **changes))
    )
    with pytest.raises(NotSupported) as error:
        update(small)
    told(error, "`prefer` has no row that such a word makes", "penjing tune --set parent=FOLDER")


def test_a_label_that_nobody_knows_is_told_before_anything_is_trained(
    small: dict[str, Any], tmp_path: Path
) -> None:
    must = put(tmp_path / "must.csv", [("a text", "nobody")])
    with pytest.raises(DataError) as error:
        update({**small, "must_pass": must})
    told(error, "must.csv, line 2", "`nobody`")
    assert not (tmp_path / "updates" / "1").exists()


def test_two_rounds_at_once_are_refused(small: dict[str, Any]) -> None:
    with rounds.held(Path(small["out"])), pytest.raises(NotSupported, match="another process is at one"):
        update(small)


def test_both_models_are_measured_by_the_tasks_own_score_on_the_same_rows(
    tuned: Callable[..., Any], tmp_path: Path
) -> None:
    live, new = tuned("lora").bundle, tuned("full").bundle
    rows = read_rows(put(tmp_path / "rows.csv", tickets(60, seed=3)))
    said = [[one["label"] for one in bundle.predict(rows.texts)] for bundle in (live, new)]
    right = [np.array([a == b[0] for a, b in zip(own, rows.labels, strict=True)]) for own in said]
    found = measure(live, new, rows)
    assert (found.live, found.new) == pytest.approx((right[0].mean(), right[1].mean()))
    assert found.gain == pytest.approx(right[1].mean() - right[0].mean())
    apart = (right[1].astype(float) - right[0]).std() / 60**0.5  # of the mean of paired differences
    assert (found.interval[1] - found.interval[0]) / 2 == pytest.approx(1.96 * apart, abs=0.03)


def test_what_judges_is_never_learned_and_what_was_learned_never_judges(tuned: Callable[..., Any]) -> None:
    """People ask in production what stands in the test set, too."""
    bundle = tuned("lora").bundle
    new, old, judging = (
        rows_of(texts)
        for texts in (
            [f"row {i}" for i in range(40)],
            ["row 0", "row 1"],
            ["row 2", "row 3", "row 1", "else"],
        )
    )
    train, trial = split(bundle, new, old, judging, share=0.2, seed=0)
    assert {"row 0", "row 1"} <= {*train.texts}
    assert {"row 2", "row 3"} <= {*trial.texts}
    assert sorted(train.texts + trial.texts) == sorted(new.texts)
    assert 6 <= len(trial) <= 10


def test_replay_takes_enough_of_every_label_and_no_row_twice() -> None:
    rows = rows_of([str(i) for i in range(100)])
    rows = rows.__class__(**{**vars(rows), "labels": [("rare",) if i < 4 else ("many",) for i in range(100)]})
    found = rounds.replayed(rows, rows.labels, 10, least=3, seed=0)
    labels = [names[0] for names in found.labels]
    assert labels.count("rare") >= 3
    assert 10 <= len(labels) <= 13
    assert len({*found.texts}) == len(found)


def test_replay_takes_every_length_alike_where_rows_have_no_labels() -> None:
    rows = rows_of(["x" * (i % 50 + 1) for i in range(200)])
    found = rounds.replayed(rows, rows.labels, 10, least=5, seed=0)
    assert sorted(len(text) for text in found.texts) == [3, 8, 13, 18, 23, 28, 33, 38, 43, 48]
    assert len(rounds.replayed(rows, rows.labels, 500, least=5, seed=0)) == 200


def test_a_torn_line_of_the_history_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    rounds.note(tmp_path, {"what": "promoted", "round": 1, "version": 2, "said": 7})
    with (tmp_path / "history.jsonl").open("a") as stream:
        stream.write('{"what": "账')
    raw = (tmp_path / "history.jsonl").read_bytes()
    (tmp_path / "history.jsonl").write_bytes(raw[:-1])  # within a character
    rounds.note(tmp_path, {"what": "refused", "round": 2, "said": 9})
    assert [line["round"] for line in rounds.history(tmp_path)] == [1, 2]
    assert (rounds.cursor(tmp_path)[0], rounds.next_round(tmp_path)) == (9, 3)


def test_rounds_stand_that_the_live_version_builds_on(tmp_path: Path) -> None:
    for number, version, parent in ((1, 2, 1), (2, 3, 2), (3, 4, 1), (4, 6, 4)):  # 5 was added by hand
        rounds.note(
            tmp_path, {"what": "promoted", "round": number, "version": version, "parent": parent, "said": 0}
        )
    rounds.note(tmp_path, {"what": "refused", "round": 5, "version": 6, "parent": 6, "said": 0})
    stands = {live: rounds.standing_rounds(tmp_path, live) for live in (1, 3, 4, 5, 6)}
    assert stands == {1: [], 3: [1, 2], 4: [3], 5: [3], 6: [3, 4]}


def test_what_is_asked_for_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    good = {"model": "m", "old": "a.csv", "test": "b.csv", "new": "c.csv"}
    assert read(good).gate.worse_by == 0.01
    for changes, wanted in (
        ({"modle": 1}, "`modle` is not a key of an update. Did you mean `model`?"),
        ({"gate": {"worse": 1}}, "`gate.worse` is not a key of an update. Did you mean `worse_by`?"),
        ({"gate": {"worse_by": 2}}, "`gate.worse_by`"),
        ({"new": None}, "An update needs new rows"),
    ):
        with pytest.raises(SpecError) as error:
            read({**good, **changes})
        told(error, wanted)
    with pytest.raises(SpecError, match="An update's file was wanted"):
        read(tmp_path / "none.yaml")
