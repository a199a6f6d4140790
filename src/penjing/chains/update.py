"""Teach the live model what came since, and let the new one take its place only if it is better.

A round: new rows (feedback since the last one, files) are split; the live version learns its share of them
beside replayed old rows, under its old labels and new ones; both models answer the old test rows, the new
ones and those that must pass; the gate decides; a promotion is one atomic turn of the registry's pointer. A
killed round leaves the live model as it was, or the new one live and the next round's first deed is to write
that down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing import spec as specs
from penjing.bundle import Bundle, load
from penjing.chains import rounds
from penjing.chains.gate import Bar, Measured, judge, measure, time_ratio
from penjing.chains.update_spec import Update, read
from penjing.data import split as splitting
from penjing.data.read import read as read_rows
from penjing.data.suspects import suspects
from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.train import tune
from penjing.jobs.watch import asked_of
from penjing.plural import counted
from penjing.records import Rows
from penjing.serve import golden, registry
from penjing.serve.registry import Version
from penjing.serve.traffic import opened as opened_traffic

SUSPECTED = 5_000  # old rows beside the new ones when wrong labels are looked for


@dataclass(frozen=True)
class Round:
    """What a round came to. what: `promoted`, `refused` or `waiting` (too few new rows)."""

    number: int | None
    what: str
    version: int | None
    bars: tuple[Bar, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        if self.what == "promoted":
            return f"round {self.number}: version {self.version} is live"
        if self.what == "refused":
            failed = ", ".join(bar.name for bar in self.bars if not bar.passed)
            return f"round {self.number}: refused by the gate ({failed}); version {self.version} stays live"
        return f"no round: {'; '.join(self.notes)}"


def update(source: str | Path | Mapping[str, Any] | Update, *, tell: Tell = silent) -> Round:
    """Make one round.

    Raises:
        SpecError, DataError: what was asked for, or its rows, cannot be used. NotSupported: another process
            is at a round, or the task is not one whose rows have labels. Unknown: no such model.
    """
    asked = source if isinstance(source, Update) else read(source)
    place = Path(asked.model)
    live, _ = registry.find(place.parent, place.name)
    out = Path(asked.out)
    with rounds.held(out):
        _settle(out, place)
        bundle = load(live.folder, base=asked.base)
        if bundle.task.name != "classify":
            raise NotSupported(
                f"{bundle!r} was to be updated by rounds; they are made for `classify`, whose rows a gate "
                "can count. Teach this one by hand: `penjing tune --set parent=FOLDER`, then compare both "
                "with `penjing evaluate`."
            )
        new, said, notes = _new_rows(asked, live, bundle)
        if len(new) < asked.least_new:
            are = counted(len(new), "new row", "new rows")
            return Round(None, "waiting", live.number, notes=(f"{are}, {asked.least_new} begin one", *notes))
        for sentence in notes:
            tell(News("note", sentence))
        return _round(asked, live, bundle, new, said, tell)


def _settle(out: Path, place: Path) -> None:
    """Where a kill fell between a promotion and its line in the history, write the line."""
    live, _ = registry.find(place.parent, place.name)
    done = {line.get("round") for line in rounds.history(out)}
    for folder in out.iterdir():
        card = folder / "run" / "best" / "card.json"
        open_ = folder.name.isdecimal() and int(folder.name) not in done and card.is_file()
        if open_ and hashlib.sha256(card.read_bytes()).hexdigest() == live.sha256:
            about = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
            kept = {key: about[key] for key in ("round", "said", "rows", "failed", "parent")}
            rounds.note(out, {"what": "promoted", "version": live.number, **kept})


def _new_rows(asked: Update, live: Version, bundle: Bundle) -> tuple[Rows, int, list[str]]:
    """Labelled rows that no round has seen, the latest label of each text; and how far feedback was read."""
    out = Path(asked.out)
    parts: list[Rows] = []
    notes: list[str] = []
    said = rounds.cursor(out)
    if asked.traffic is not None:
        with opened_traffic(asked.traffic) as store:
            kept = store.rows(model=live.name, labelled=True, after=said)
        kept.sort(key=lambda one: one.said or 0)
        said = max([said, *(one.said or 0 for one in kept)])
        texts = [asked_of(one) for one in kept]
        labels = [(k.truth,) if isinstance(k.truth, str) else tuple(map(str, k.truth or ())) for k in kept]
        there = np.arange(len(kept), dtype=np.int64)
        parts.append(Rows(texts, labels, (asked.traffic,), np.zeros(len(kept), dtype=np.int32), there + 1))
    if asked.new is not None:
        rows = _rows(asked, asked.new, bundle)
        learned = {text for n in rounds.standing_rounds(out, live.number) for text, _ in _pairs_of(out, n)}
        fresh = [i for i, text in enumerate(rows.texts) if text not in learned]
        asked_now = {(rows.texts[i], rows.labels[i]) for i in fresh}
        refused = [line["round"] for line in rounds.history(out) if line["what"] == "refused"]
        if any(asked_now <= _pairs_of(out, n) for n in refused):  # nothing of it was mended since
            fresh = []
        parts.append(rows.take(np.array(fresh, dtype=np.int64)))
    rows = rounds.joined(parts)
    latest = {text: i for i, text in enumerate(rows.texts)}
    if len(latest) < len(rows):
        are = counted(len(rows) - len(latest), "row was", "rows were")
        notes.append(f"{are} said again; the latest counts")
    one_label = [i for i in sorted(latest.values()) if bundle.task.multi_label or len(rows.labels[i]) == 1]
    if len(one_label) < len(latest):
        left = counted(len(latest) - len(one_label), "row has", "rows have")
        notes.append(f"{left} not one label; left out")
    return rows.take(np.array(one_label, dtype=np.int64)), said, notes


def _pairs_of(out: Path, number: int) -> set[tuple[str, tuple[str, ...]]]:
    """Texts and labels that were new in a round."""
    names = ("new_train.jsonl", "new_test.jsonl")
    parts = [rounds.read_rows(out / str(number) / name, multi_label=True) for name in names]
    return {pair for part in parts for pair in zip(part.texts, part.labels, strict=True)}


def _rows(asked: Update, source: str | list[str], bundle: Bundle) -> Rows:
    return read_rows(source, text=asked.text, label=asked.label, multi_label=bundle.task.multi_label)


def _round(asked: Update, live: Version, bundle: Bundle, new: Rows, said: int, tell: Tell) -> Round:
    out, place = Path(asked.out), Path(asked.model)
    number = rounds.next_round(out)
    folder = out / str(number)
    folder.mkdir()
    before = [out / str(n) for n in rounds.standing_rounds(out, live.number)]
    many = bundle.task.multi_label
    stored = lambda name: [rounds.read_rows(f / name, multi_label=many) for f in before]  # noqa: E731
    old = rounds.joined([_rows(asked, asked.old, bundle), *stored("new_train.jsonl")])
    test = rounds.joined([_rows(asked, asked.test, bundle), *stored("new_test.jsonl")])
    train, trial = _split(new, old, asked.test_share, asked.seed + number)
    rounds.write_rows(folder / "new_train.jsonl", train)
    rounds.write_rows(folder / "new_test.jsonl", trial)
    tell(News("stage", f"round {number}: {len(train):,} new rows to learn, {len(trial):,} to test with"))
    replay = rounds.replayed(
        old, round(asked.replay * len(train)), least=asked.least_replay, seed=asked.seed + number
    )
    rounds.write_rows(folder / "train.jsonl", rounds.joined([replay, train]))
    run = tune(_spec(asked, live, bundle, folder, train), tell=tell)
    made = load(run.folder, base=asked.base)
    tell(News("stage", f"round {number}: both models on the same rows"))
    bars = _judged(asked, bundle, made, trial, test, _suspects(old, train, asked.seed))
    passed = all(bar.passed for bar in bars)
    failed = [bar.name for bar in bars if not bar.passed]
    about = {"round": number, "said": said, "rows": len(new), "failed": failed, "parent": live.number}
    write_json(folder / "gate.json", {**about, "bars": [vars(bar) for bar in bars]})
    version = live.number
    if passed:
        added = registry.add(
            place.parent, place.name, run.folder, prove=lambda f: golden.make(load(f, base=asked.base))
        )
        registry.point(place.parent, place.name, added.number, why=f"update, round {number}")
        version = added.number
    what = "promoted" if passed else "refused"
    rounds.note(out, {"what": what, "version": version, **about})
    return Round(number, what, version, tuple(bars))


def _split(new: Rows, old: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """New rows to learn and to test with; what was learned before proves nothing, and goes to the former."""
    learned, tested = splitting.split(new, share=share, seed=seed)
    known = {*old.texts}
    fresh = np.array([text not in known for text in new.texts], dtype=bool)
    learned = np.sort(np.concatenate([learned, tested[~fresh[tested]]]))
    return new.take(learned), new.take(tested[fresh[tested]])


def _spec(asked: Update, live: Version, bundle: Bundle, folder: Path, train: Rows) -> specs.Spec:
    """The spec of the round's training: the live version's own task, method and base, and its weights."""
    card = bundle.card
    names = list(card["labels"])
    names += sorted({name for row in train.labels for name in row} - {*names})
    task = card["task"] if isinstance(card["task"], dict) else {card["task"]: {}}
    ((kind, settings),) = task.items()
    return specs.read(
        {
            "base": asked.base or card["base"]["name"],
            "parent": str(live.folder),
            "task": {kind: {**(settings or {}), "labels": names}},
            "method": card["method"],
            "data": {"train": str(folder / "train.jsonl"), "text": "text", "label": "label",
                     "max_length": card["max_length"]},
            "train": asked.train,
            "seed": asked.seed,
            "out": str(folder),
            "name": "run",
        }
    )  # fmt: skip


def _judged(
    asked: Update, live: Bundle, new: Bundle, trial: Rows, test: Rows, suspected: tuple[float, float]
) -> list[Bar]:
    must = measure(live, new, _rows(asked, asked.must_pass, live)) if asked.must_pass else None
    slices: dict[str, Measured] = {
        name: measure(live, new, _rows(asked, file, live)) for name, file in asked.slices.items()
    }
    return judge(
        asked.gate,
        new=measure(live, new, trial),
        old=measure(live, new, test),
        must=must,
        slices=slices,
        ratio=time_ratio(live, new, trial.texts),
        suspects=suspected,
        seed=asked.seed,
    )


def _suspects(old: Rows, train: Rows, seed: int) -> tuple[float, float]:
    """Share of the new train rows, and of old rows beside them, whose label is likely wrong, by models that
    did not see them: a cheap model suspects rows of hard tasks, too."""
    beside = rounds.replayed(old, SUSPECTED, least=0, seed=seed)
    whole = rounds.joined([train, beside])
    found = suspects(whole, seed=seed, n_most=len(whole))
    ours = sum(int(one["row"]) < len(train) for one in found)
    return ours / max(1, len(train)), (len(found) - ours) / max(1, len(beside))


def shown(bars: Sequence[Bar]) -> list[list[str]]:
    """The gate as rows of a table."""
    return [["passed" if bar.passed else "FAILED", bar.name, bar.wanted, bar.found] for bar in bars]
