"""Teach the live model what came since, and let the new one take its place only if it is better.

A round: new rows (feedback since the last one, files) are split; the live version learns its share of them
beside replayed old rows, under its old labels and new ones; both models answer the old test rows, the new
ones and those that must pass; the gate decides; a promotion is one atomic turn of the registry's pointer. A
killed round leaves the live model as it was, and is gone on with where nothing it stands on has changed; or
the new one live, and the next round's first deed is to write that down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing import plugin
from penjing import spec as specs
from penjing.bundle import Bundle, load
from penjing.chains import rounds
from penjing.chains.gate import Bar, judge, measure, time_ratio
from penjing.chains.new_rows import collect
from penjing.chains.update_spec import Update, read
from penjing.data import split as splitting
from penjing.data.suspects import suspects
from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import rows_from
from penjing.jobs.train import resume, tune
from penjing.jobs.widened import widened
from penjing.plural import counted
from penjing.records import Rows
from penjing.serve import golden, registry
from penjing.serve.registry import Version

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
            is at a round, or the task cannot learn from what is said of its answers. Unknown: no such model.
    """
    asked = source if isinstance(source, Update) else read(source)
    place = Path(asked.model)
    registry.refuse_unknown(place.parent, place.name)
    live, _ = registry.find(place.parent, place.name)
    out = Path(asked.out)
    with rounds.held(out):
        _settle(out, place)
        bundle = load(live.folder, base=asked.base)
        _refuse(bundle)
        new, said, notes = collect(asked, live, bundle)
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


def _refuse(bundle: Bundle) -> None:
    task = bundle.task
    if task.teach is None or task.difference is None or not task.learns:
        raise NotSupported(
            f"{bundle!r} was to learn from what is said of its answers; `{task.name}` has no row that such a "
            "word makes. Teach it by hand: `penjing tune --set parent=FOLDER`, then compare both with "
            "`penjing evaluate`."
        )


@dataclass(frozen=True)
class Judges:
    """Labelled rows that both models answer: new ones, old ones, those that must pass, and slices."""

    new: Rows
    old: Rows
    must: Rows | None
    slices: dict[str, Rows]


def _round(asked: Update, live: Version, bundle: Bundle, new: Rows, said: int, tell: Tell) -> Round:
    out, place = Path(asked.out), Path(asked.model)
    before = [out / str(n) for n in rounds.standing_rounds(out, live.number)]
    stored = lambda name: [rounds.read_rows(f, name, bundle) for f in before]  # noqa: E731
    old = rounds.joined([_rows(asked, asked.old, bundle), *stored("new_train")])
    test = rounds.joined([_rows(asked, asked.test, bundle), *stored("new_test")])
    slices = {name: _rows(asked, file, bundle) for name, file in asked.slices.items()}
    judging = rounds.joined([test, *slices.values()])
    about: dict[str, Any] = {"said": said, "rows": len(new), "parent": live.number}
    beside = [rounds.lines_of(bundle, rows) for rows in (old, judging)]
    key = rounds.key_of(asked.model_dump(), live.sha256, *beside)
    cut_off = rounds.cut_off(out, key)
    if cut_off is not None:
        number, about = cut_off
        train, trial = rounds.new_rows(out / str(number), bundle)
        tell(News("note", f"round {number} was cut off and goes on; what came since waits for the next one"))
    else:
        number = rounds.next_round(out)
        train, trial = split(bundle, new, old, judging, share=asked.test_share, seed=asked.seed + number)
    for rows, lack, why in (
        (trial, "asks what the old ones do not", "test with"),
        (train, "asks what the rows that judge do not", "learn"),
    ):
        if not len(rows):
            said_so = f"{len(new):,} new rows, of which none {lack}: nothing to {why}"
            return Round(None, "waiting", live.number, notes=(said_so,))
    folder, names = out / str(number), _names(bundle, rounds.joined([train, trial]))
    judges = _judges(asked, bundle, names, trial, test, slices)
    if cut_off is None:
        rounds.begin(folder, bundle, train, trial, {"key": key, **about})
    tell(News("stage", f"round {number}: {len(train):,} new rows to learn, {len(trial):,} to test with"))
    run = rounds.run_of(folder)
    if run is None:
        run = tune(_spec(asked, live, bundle, names, folder, train, old, number), tell=tell)
    elif run.state != "done":
        run = resume(run.folder, tell=tell)
    made = load(run.folder, base=asked.base)
    tell(News("stage", f"round {number}: both models on the same rows"))
    bars = _judged(asked, widened(bundle, made.labels), made, judges, _suspects(old, train, asked.seed))
    passed = all(bar.passed for bar in bars)
    failed = [bar.name for bar in bars if not bar.passed]
    about = {"round": number, **about, "failed": failed}
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


def _rows(asked: Update, source: str | list[str], bundle: Bundle) -> Rows:
    return rows_from(bundle.task, source, text=asked.text, label=asked.label)


def split(
    bundle: Bundle, new: Rows, old: Rows, judging: Rows, *, share: float, seed: int
) -> tuple[Rows, Rows]:
    """New rows to learn and to test with. What was learned before proves nothing, and is learned; what the
    rows ask that judge already would prove nothing once it was learned, and is tested with."""
    tested = np.zeros(len(new), dtype=bool)
    tested[splitting.split(new, share=share, seed=seed, groups=bundle.task.groups(new))[1]] = True
    keys = rounds.keys_of(bundle, new)
    judged, known = {*rounds.keys_of(bundle, judging)}, {*rounds.keys_of(bundle, old)}
    tested |= np.array([key in judged for key in keys], dtype=bool)
    tested &= np.array([key not in known for key in keys], dtype=bool)
    return new.take(np.flatnonzero(~tested)), new.take(np.flatnonzero(tested))


def _names(bundle: Bundle, new: Rows) -> list[str]:
    """The live version's labels, then those that it hears of first."""
    found = {name for own in rounds.teach_of(bundle).kinds(new) for name in own}
    return [*bundle.labels, *sorted(found - {*bundle.labels})]


def _judges(
    asked: Update, bundle: Bundle, names: list[str], trial: Rows, test: Rows, slices: dict[str, Rows]
) -> Judges:
    """The rows of every bar, read before anything is trained; a label that nobody knows is refused here."""
    must = _rows(asked, asked.must_pass, bundle) if asked.must_pass else None
    for rows in (trial, test, *([] if must is None else [must]), *slices.values()):
        bundle.task.encode(rows, names)
    return Judges(trial, test, must, slices)


def _spec(
    asked: Update,
    live: Version,
    bundle: Bundle,
    names: list[str],
    folder: Path,
    train: Rows,
    old: Rows,
    number: int,
) -> specs.Spec:
    """The spec of the round's training: the live version's own task, method and base, and its weights, over
    the new rows and old ones."""
    card, teach = bundle.card, rounds.teach_of(bundle)
    replay = rounds.replayed(
        old,
        teach.kinds(old),
        round(asked.replay * len(train)),
        least=asked.least_replay,
        seed=asked.seed + number,
    )
    lines = rounds.lines_of(bundle, rounds.joined([replay, train]))
    task = card["task"] if isinstance(card["task"], dict) else {card["task"]: {}}
    ((kind, settings),) = task.items()
    named = any(teach.kinds(train)) and "labels" in plugin.signature("tasks", kind)
    return specs.read(
        {
            "base": asked.base or card["base"]["name"],
            "parent": str(live.folder),
            "task": {kind: {**(settings or {}), **({"labels": names} if named else {})}},
            "method": card["method"],
            "data": {
                "train": rounds.write_lines(folder, "train", lines),
                "max_length": card["max_length"],
                **teach.columns(bundle.labels),
            },
            "train": asked.train,
            "seed": asked.seed,
            "out": str(folder),
            "name": "run",
        }
    )


def _judged(
    asked: Update, live: Bundle, new: Bundle, judges: Judges, suspected: tuple[float, float] | None
) -> list[Bar]:
    both = lambda rows: measure(live, new, rows, seed=asked.seed)  # noqa: E731
    return judge(
        asked.gate,
        new=both(judges.new),
        old=both(judges.old),
        must=None if judges.must is None else both(judges.must),
        slices={name: both(rows) for name, rows in judges.slices.items()},
        ratio=time_ratio(live, new, judges.new),
        suspects=suspected,
    )


def _suspects(old: Rows, train: Rows, seed: int) -> tuple[float, float] | None:
    """Share of the new train rows, and of old rows beside them, whose label is likely wrong, by models that
    did not see them: a cheap model suspects rows of hard tasks, too. None where rows have not one label."""
    if not all(len(own) == 1 for own in train.labels):
        return None
    beside = rounds.replayed(old, old.labels, SUSPECTED, least=0, seed=seed)
    whole = rounds.joined([train, beside])
    found = suspects(whole, seed=seed, n_most=len(whole))
    ours = sum(int(one["row"]) < len(train) for one in found)
    return ours / max(1, len(train)), (len(found) - ours) / max(1, len(beside))


def shown(bars: Sequence[Bar]) -> list[list[str]]:
    """The gate as rows of a table."""
    return [["passed" if bar.passed else "FAILED", bar.name, bar.wanted, bar.found] for bar in bars]
