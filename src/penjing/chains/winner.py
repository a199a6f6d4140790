"""The end of a search: a winner by validation rows, trained again where asked, proved once on the test rows.

What may win: the best trial; ensembles of the best trials, of the winner's seeds, of its folds; a soup of
trials.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from penjing.bundle import load
from penjing.chains.asked import Asked
from penjing.chains.combine import Candidate, Judge, Member, member, save_ensemble
from penjing.chains.halving import rungs
from penjing.chains.journal import Journal
from penjing.chains.soup import cook, greedy, kettles
from penjing.chains.trial import Pool, carried, folder_of
from penjing.errors import TrainingFailed
from penjing.files import new_folder, write_text
from penjing.jobs.news import News, Tell
from penjing.jobs.training import Training, begin, finish
from penjing.models.ensemble import WAYS
from penjing.run import Run
from penjing.spec import Spec

MOST = 5  # trials in an ensemble, and ingredients of a soup


@dataclass(frozen=True)
class Table:
    """All that the end of a search has at hand."""

    run: Run
    asked: Asked
    journal: Journal
    shared: Pool
    tell: Tell

    @property
    def trials(self) -> Path:
        """Where the runs of trials stand."""
        return self.run.folder / "trials"

    def member(self, name: str, folder: Path) -> Member:
        """A run's best bundle, with its answers on the validation rows."""
        return member(name, load(folder, machine=self.shared.machine), self.shared.data.valid)


def crown(run: Run, asked: Asked, journal: Journal, shared: Pool, tell: Tell) -> None:
    """Choose, put the best bundle into the search's folder, and prove it on the test rows.

    Raises:
        TrainingFailed: every trial failed.
    """
    table = Table(run, asked, journal, shared, tell)
    ranked = ranking(journal)
    if not ranked:
        raise _no_winner(journal)
    spec = asked.spec(journal.settings[ranked[0]])
    it = _single(table, spec, ranked[0])
    chosen, candidates, it = _chosen(table, spec, it, ranked)
    spec = spec.model_copy(update={"seed": it.job.spec.seed})
    _place(table, chosen)
    text = yaml.safe_dump(spec.written(), sort_keys=False, allow_unicode=True)
    write_text(run.folder / "spec.yaml", text)
    about = {"trial": ranked[0], "settings": journal.settings[ranked[0]], "chosen": chosen.plain()}
    rest = {"candidates": [c.plain() for c in candidates], "trials": trials_of(journal)}
    run.write("search.json", {**about, **rest})
    begin(run, shared.job(spec, whole=True))
    finish(it, into=run)


def ranking(journal: Journal) -> list[int]:
    """Trials that did not fail, best first: those that came further before the others, by score among
    them."""
    halving, failed = journal.halving, {t for t, outcomes in journal.outcomes.items() if outcomes[-1].failed}
    found: list[int] = []
    for rung in reversed(range(halving.n_rungs)):
        found += [trial for trial in halving.ranked(rung) if trial not in found]
    return [trial for trial in found if trial not in failed]


def trials_of(journal: Journal) -> list[dict[str, Any]]:
    """Every trial as it ended, best first, those that failed last."""
    ranked = ranking(journal)
    order = [*ranked, *(trial for trial in journal.outcomes if trial not in ranked)]
    return [{"settings": journal.settings[t], **asdict(journal.outcomes[t][-1])} for t in order]


def _no_winner(journal: Journal) -> TrainingFailed:
    reasons = [o.failed for outcomes in journal.outcomes.values() for o in outcomes if o.failed]
    return TrainingFailed(
        f"All {len(reasons)} trials of the search failed, so there is no winner. The first one: {reasons[0]} "
        f"Change the space; search.jsonl in {journal.run.folder} holds every reason."
    )


def _single(table: Table, spec: Spec, trial: int) -> Training:
    """The winning trial as it is, made again where its saved state was pruned; after folds, its settings
    trained on all the train rows."""
    if not table.shared.folds:
        shares = rungs(table.asked.search.first_share, table.asked.search.reduction)
        share = shares[table.journal.outcomes[trial][-1].rung]
        return carried(folder_of(table.trials, trial), table.shared.job(spec), share)
    table.tell(News("stage", f"training the winner, trial {trial}, on all train rows"))
    return carried(table.trials / "winner", table.shared.job(spec, whole=True))


def _chosen(
    table: Table, spec: Spec, it: Training, ranked: Sequence[int]
) -> tuple[Candidate, list[Candidate], Training]:
    """The candidate to keep, all there were, and the training it is of: of several, the winner's."""
    shared, search = table.shared, table.asked.search
    single = table.member("winner", it.run.folder)
    task = it.job.task
    judge = Judge(task, single.targets, shared.data.names, spec.seed, single)
    candidates = [judge.alone(single)]
    trained = [it, *_seeds(table, spec)]
    seeds = [single, *(table.member(one.run.folder.name, one.run.folder) for one in trained[1:])]
    if search.combine and task.difference is None:
        told = f"`task: {task.name}` compares no two models' answers, so the best trial stands alone"
        table.tell(News("note", told))
    elif search.combine:
        table.tell(News("stage", "trying ensembles and soups on the validation rows"))
        trials = [] if shared.folds else _best_trials(table, single, ranked)
        groups = {"seeds": seeds, "best trials": trials, "folds": _folds(table, ranked[0])}
        for name, members in groups.items():
            if len(members) > 1:
                candidates += judge.together(name, members)
        candidates += _soups(table, judge, trials)
    else:
        candidates += [judge.alone(one) for one in seeds[1:]]
    better = [c for c in candidates if c.better]
    chosen = max(better, key=judge.worth) if better else candidates[0]
    text = f"{chosen.name}: {chosen.score:.4f} on validation rows"
    if chosen.way != "single":
        text += f", {chosen.gain:+.4f} (standard error {chosen.error:.4f}) over the best trial alone"
    table.tell(News("score", text))
    alone = chosen.members[0] if chosen.way == "single" else single
    return chosen, candidates, next(one for one, of in zip(trained, seeds, strict=True) if of is alone)


def _seeds(table: Table, spec: Spec) -> list[Training]:
    found = []
    for i in range(1, table.asked.search.seeds):
        table.tell(News("stage", f"training the winner's settings with seed {spec.seed + i}"))
        job = table.shared.job(spec.model_copy(update={"seed": spec.seed + i}), whole=True)
        found.append(carried(table.trials / f"seed-{spec.seed + i}", job))
    return found


def _best_trials(table: Table, single: Member, ranked: Sequence[int]) -> list[Member]:
    """The best trials over the winner's base, which read rows alike."""
    found = [single]
    for trial in ranked[1:]:
        spec = table.asked.spec(table.journal.settings[trial])
        if len(found) < MOST and (spec.origin, spec.data.max_length) == _reading(table, ranked[0]):
            found.append(table.member(f"trial {trial}", folder_of(table.trials, trial)))
    return found


def _reading(table: Table, trial: int) -> tuple[tuple[Any, ...], int | None]:
    spec = table.asked.spec(table.journal.settings[trial])
    return spec.origin, spec.data.max_length


def _folds(table: Table, trial: int) -> list[Member]:
    n_folds = len(table.shared.folds)
    return [table.member(f"fold {i + 1}", folder_of(table.trials, trial, i)) for i in range(n_folds)]


def _soups(table: Table, judge: Judge, trials: Sequence[Member]) -> list[Candidate]:
    """A greedy soup of every group of trials that can be averaged."""
    seeds = {one.name: Run(one.folder.parent).spec.seed for one in trials}
    found = [_soup(table, judge, nth, group) for nth, group in enumerate(kettles(trials, seeds), 1)]
    return [one for one in found if len(one.members) > 1]


def _soup(table: Table, judge: Judge, nth: int, group: Sequence[Member]) -> Candidate:
    folder = table.trials / f"soup-{nth}"

    def cooked(members: Sequence[Member]) -> Candidate:
        cook(folder, members)
        return judge.soup(f"soup {nth} of best trials", members, table.member(folder.name, folder))

    return cooked(greedy(group, lambda members: judge.worth(cooked(members))))


def _place(table: Table, chosen: Candidate) -> None:
    """The chosen bundle as the search's own."""
    best = table.run.folder / "best"
    if chosen.way in WAYS:
        save_ensemble(best, chosen, table.shared.task.best)
        return
    with new_folder(best) as aside:
        shutil.copytree(chosen.folder, aside, dirs_exist_ok=True)
