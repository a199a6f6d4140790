"""Search: a spec with spaces -> many short trials, few long ones -> the winner, proved once on test rows.

The search's folder is a run: `best/` is what won (one model, or several as one where validation says so),
spec.yaml repeats the winner, report.html proves it. search.yaml repeats the search, search.jsonl is its
journal, search.html tells of every trial, trials/ holds their runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from penjing import run as runs
from penjing.chains import asked as questions
from penjing.chains import journal as journals
from penjing.chains.asked import Asked
from penjing.chains.halving import Halving, rungs
from penjing.chains.journal import Journal
from penjing.chains.page import PAGE, write_page
from penjing.chains.runners import Runner, banked, on_ray
from penjing.chains.sampling import Draw, sampler
from penjing.chains.trial import Leg, Outcome, Pool, forecast_s, pool
from penjing.chains.winner import crown
from penjing.engine.trunk import mib
from penjing.errors import NotSupported, WontFit
from penjing.files import write_text
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import span
from penjing.jobs.train import same_base, same_rows
from penjing.places import typed
from penjing.run import SEARCH, Run


def search(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    sets: tuple[str, ...] = (),
    on: str | None = None,
    tell: Tell = silent,
    **keywords: Any,
) -> Run:
    """Find the best settings of a spec with spaces; returns the search's folder as a finished Run.

    `search={"trials": 8}` is laid over the section `search`; other keywords are as in `spec.read`. `on` is
    the address of a Ray cluster.

    Raises:
        SpecError, DataError: what was asked for or the rows are not usable.
        NotSupported: a library or the cluster is not there.
        WontFit: the time limit is too short for one trial.
        TrainingFailed: every trial failed.
    """
    asked = questions.read(source, sets=sets, **keywords)
    draw = sampler(asked.search.sampler, asked.values, asked.first.seed)
    if asked.usual:
        told = "nothing was left open: the usual methods and rates are tried; `--dry-run` prints them"
        tell(News("note", told))
    runs.refuse_named(asked.first, verb="search")
    shared = _opened(asked, tell)
    expected = _whole_trial_s(asked, draw, shared)
    run = runs.place(asked.first, "search", verb="search")
    write_text(run.folder / SEARCH, yaml.safe_dump(asked.written(), sort_keys=False, allow_unicode=True))
    with run.held():
        return _carry(run, asked, draw, shared, on, tell, expected)


def resume(
    folder: str | Path | None = None, *, on: str | None = None, out: str = "runs", tell: Tell = silent
) -> Run:
    """Go on with a search that was stopped or killed; without `folder`, the newest open one below `out`.

    Raises:
        NotSupported: there is no such search, it is done, or its rows, its bases or its space have changed.
    """
    place = Path(folder) if folder is not None else _newest(out)
    if not (place / SEARCH).is_file():
        raise NotSupported(
            f"A search was wanted in {place}; it has no {SEARCH}. `penjing search SPEC` makes one below "
            "runs/."
        )
    run = Run(place)
    with run.held():
        if _is_done(run):
            raise NotSupported(
                f"The search {place} was to be resumed; it is done. See {place / 'search.html'}, or start a "
                f"new one: `penjing search {typed(place / SEARCH)} --name NAME`."
            )
        asked = questions.read(place / SEARCH)
        draw, shared = sampler(asked.search.sampler, asked.values, asked.first.seed), _opened(asked, tell)
        _refuse_other(place, asked, shared)
        return _carry(run, asked, draw, shared, on, tell)


def _refuse_other(place: Path, asked: Asked, shared: Pool) -> None:
    """See that the trials were begun on these rows, over these bases and in this space."""
    for line in Run(place).lines(journals.NAME):
        if "begun" in line:
            asked.spec(line["settings"])
    seen = set[tuple[Any, ...]]()
    for begun in sorted((place / "trials").glob("*/lineage.json")):
        run = Run(begun.parent)
        if not seen:  # all of one search's rows
            same_rows(run, shared.data.sources)
        if run.spec.origin not in seen:
            seen.add(run.spec.origin)
            same_base(run, shared.job(run.spec).base)


def _is_done(run: Run) -> bool:
    """True when the last thing a search writes is there."""
    return (run.folder / PAGE).is_file()


def _newest(out: str) -> Path:
    found = [path.parent for path in Path(out).glob(f"*/{SEARCH}") if not _is_done(Run(path.parent))]
    free = [path for path in found if not Run(path).busy]
    if not free:
        raise NotSupported(
            f"A search that is not done was wanted below {out}; there is none that no process holds. Name "
            "its folder, or give `--out`."
        )
    return max(free, key=lambda path: (path / SEARCH).stat().st_mtime)


def _opened(asked: Asked, tell: Tell) -> Pool:
    shared = pool(asked.first, asked.search.folds, tell)
    for note in (*shared.machine.notes, *shared.data.notes):
        tell(News("note", note))
    return shared


def _carry(
    run: Run, asked: Asked, draw: Draw, shared: Pool, on: str | None, tell: Tell, expected: float = 0.0
) -> Run:
    shares = rungs(asked.search.first_share, asked.search.reduction)
    journal = journals.read(run, Halving(len(shares), asked.search.reduction))
    runner = on_ray(on, asked) if on else banked(shared, asked.ends)
    if not journal.at_once:
        wanted = asked.search.at_once
        journal.settle(min(runner.seats, asked.search.trials) if wanted == "auto" else wanted)
    try:
        _look(asked, shares, journal, draw, runner, tell, expected, lower=shared.task.lower)
    except KeyboardInterrupt:
        tell(News("note", f"stopped; `penjing search --resume {typed(run.folder)}` goes on"))
        raise
    finally:
        runner.close()
    crown(run, asked, journal, shared, tell)
    if journal.freed:
        tell(News("note", f"{mib(journal.freed)} freed: saved states of trials that were beaten"))
    write_page(run, asked, journal, shares)
    return run


def _whole_trial_s(asked: Asked, draw: Draw, shared: Pool) -> float:
    """Seconds that a whole trial should take, where the time is limited; it must fit into the limit."""
    minutes, settings = asked.search.minutes, draw([])
    if minutes is None or settings is None:
        return 0.0
    wanted = forecast_s(asked.spec(settings), shared)
    if wanted > 60 * minutes:
        raise WontFit(
            f"`search.minutes` is {minutes:g}; one whole trial should take about {span(wanted)} here (the "
            f"first one, rehearsed). Give more minutes, or shorter trials: fewer `train.epochs` or "
            f"`search.folds`, or `method: {{top: {{layers: 0}}}}`."
        )
    return wanted


def _look(
    asked: Asked,
    shares: tuple[float, ...],
    journal: Journal,
    draw: Draw,
    runner: Runner,
    tell: Tell,
    expected: float,
    *,
    lower: bool,
) -> None:
    """Begin legs and take their outcomes until there is nothing left to begin. A whole trial is `expected` to
    take so many seconds until one has told better."""
    began = time.perf_counter() - journal.seconds
    flying = 0

    def fly(trial: int, rung: int) -> None:
        nonlocal flying
        spec = asked.spec(journal.settings[trial])
        runner.start(Leg(trial, rung, shares[rung], spec, journal.run.folder / "trials"))
        flying += 1

    for trial, rung in journal.open:  # begun by a process that was killed
        fly(trial, rung)
    while True:
        while flying < journal.at_once:
            whole_s = _whole_s(journal, shares) or expected
            left_s = _left_s(asked, time.perf_counter() - began) - whole_s * _owed(journal, shares)
            found = _next(asked, shares, journal, draw, left_s, whole_s)
            if found is None:
                break
            trial, rung, settings = found
            journal.begin(trial, rung, settings)
            fly(trial, rung)
        if not flying:
            return
        outcome = runner.wait()
        flying -= 1
        journal.end(outcome, time.perf_counter() - began)
        journal.prune(asked.search.trials)
        _tell(journal, outcome, tell, lower=lower)
        _tell_ahead(asked, shares, journal, tell, time.perf_counter() - began)


def _left_s(asked: Asked, spent: float) -> float:
    return float("inf") if asked.search.minutes is None else 60 * asked.search.minutes - spent


def _next(
    asked: Asked, shares: tuple[float, ...], journal: Journal, draw: Draw, left_s: float, whole_s: float
) -> tuple[int, int, dict[str, Any]] | None:
    """(trial, rung, settings) of the leg to begin next, or None when there is none that the time allows."""
    halving, n_begun = journal.halving, len(journal.settings)
    found = halving.next()
    if found is None and n_begun < asked.search.trials:
        # Beside the new trial there must be time to carry the best one to the end.
        rest = 0.0 if halving.top == len(shares) - 1 else 1 - shares[halving.top]
        settings = draw(journal.tried()) if whole_s * (shares[0] + rest) <= left_s else None
        if settings is not None:
            return n_begun, 0, settings
    if found is None and not journal.open:
        found = halving.next(last_call=True)
    if found is None:
        return None
    trial, rung = found
    if whole_s * (shares[rung + 1] - shares[rung]) > left_s:
        return None
    return trial, rung + 1, journal.settings[trial]


def _whole_s(journal: Journal, shares: tuple[float, ...]) -> float:
    """Seconds that a whole trial takes, by the median of those so far; 0 while there is none."""
    last = [outcomes[-1] for outcomes in journal.outcomes.values() if outcomes[-1].score is not None]
    return statistics.median([o.seconds / shares[o.rung] for o in last]) if last else 0.0


def _owed(journal: Journal, shares: tuple[float, ...]) -> float:
    """Whole trials that the legs on their way come to."""
    return sum(shares[rung] - (shares[rung - 1] if rung else 0.0) for _, rung in journal.open)


def _tell(journal: Journal, outcome: Outcome, tell: Tell, *, lower: bool) -> None:
    trial = outcome.trial
    text = ", ".join(f"{key} {value}" for key, value in journal.settings[trial].items())
    if outcome.score is None:
        tell(News("note", f"trial {trial} ({text}) failed: {outcome.failed}"))
        return
    spread = "" if outcome.spread is None else f" ± {outcome.spread:.4f}"
    score = -outcome.score if lower else outcome.score
    far = f"{outcome.step}/{outcome.steps} steps"
    tell(News("score", f"trial {trial}: {score:.4f}{spread} after {far}: {text}"))


def _tell_ahead(
    asked: Asked, shares: tuple[float, ...], journal: Journal, tell: Tell, spent_s: float
) -> None:
    """How many legs have ended of how many, and how long the rest should take."""
    done = sum(map(len, journal.outcomes.values()))
    ahead = journal.halving.ahead(asked.search.trials)
    ahead[0] -= sum(rung == 0 for _, rung in journal.open)
    parts = [share - before for share, before in zip(shares, (0.0, *shares), strict=False)]
    wholes = sum(n * part for n, part in zip(ahead, parts, strict=True)) + _owed(journal, shares)
    left = min(_whole_s(journal, shares) * wholes, max(0.0, _left_s(asked, spent_s)))
    total = done + len(journal.open) + sum(ahead)
    tell(News("progress", f"parts of trials, at most {span(left)} to go", done, total))
