"""Legs of a search carried at once: which of them share a bank, how many, and what came of each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penjing.chains.trial import Leg, Outcome, Pool, carry, carry_on, open_leg, outcome_of, until
from penjing.device import free_mib
from penjing.errors import NotSupported, PenjingError, TrainingFailed
from penjing.jobs.caching import why_not
from penjing.jobs.prepare import n_passes, n_steps, ready
from penjing.jobs.together import ADAPTERS, advance_together, company
from penjing.jobs.training import Training, parts_of
from penjing.models.adapters import share_weights, why_alone
from penjing.models.layers import bare
from penjing.models.sizing import count
from penjing.spec import Spec

MOST = 16  # trials on their way at a time, where nothing else bounds them: a sampler learns from those before
FULL = {"cpu": 512, "cuda": 8192}  # tokens a pass at which a device is busy by itself (docs/bank.md)
COPIES = 5  # fp32 numbers a parameter that trains: itself, gradient, two moments, its place in a stack


def seats(ends: Sequence[Spec], shared: Pool) -> int:
    """How many trials of a space are carried at a time with gain; `ends` are the specs at its ends."""
    kinds = {(s.origin, s.method.name, s.train.batch, s.train.optimizer): s for s in reversed(ends)}
    return max(_seats(spec, shared) for spec in kinds.values())


def _seats(spec: Spec, shared: Pool) -> int:
    try:
        job = shared.job(spec)
        train = (job.parts or parts_of(job))[0]
        n_rows = len(train)
        made = ready(spec, job.task, job.data.names, job.base, job.machine, None, steps=n_steps(spec, n_rows))
        keeps = not why_not(spec.train, made.model, made.techniques, n_passes(spec, n_rows))
    except PenjingError:  # carried, the trial says why
        return 1
    model = made.model
    if made.techniques or job.task.fit or job.machine.precision == "fp16":
        return 1
    if model.pools and keeps:
        return MOST
    if why_alone(model.trunk) or model.frozen is not None or not model.way.packed:
        return 1
    tokens = float(train.tokens.lengths.mean()) * min(spec.train.batch, n_rows)
    return max(1, min(MOST, int(FULL.get(job.machine.device.type, 0) / tokens)))


@dataclass
class _Table:
    """Legs whose runs, one a fold, share a bank."""

    legs: list[tuple[Leg, list[Training]]] = field(default_factory=list)

    def advance(self) -> dict[int, Outcome]:
        """What came of each leg, by trial."""
        if sum(len(its) for _, its in self.legs) == 1:
            return {leg.trial: carry_on(leg, its) for leg, its in self.legs}
        untils = {it.run.folder.name: (it, until(it, leg.share)) for leg, its in self.legs for it in its}
        with contextlib.ExitStack() as held:
            for it, _ in untils.values():
                held.enter_context(it.run.held())
            failed = advance_together(untils)
        found = {}
        for leg, its in self.legs:
            reasons = [str(failed[name]) for it in its if (name := it.run.folder.name) in failed]
            lost = Outcome(leg.trial, leg.rung, failed=reasons[0]) if reasons else None
            found[leg.trial] = lost or outcome_of(leg, its)
        return found


def carry_together(legs: Sequence[Leg], shared: Pool) -> list[Outcome]:
    """As `trial.carry`, for several trials at once; those that cannot share the base's passes go one by one.

    Raises:
        CannotWrite: no trial could be written.
    """
    found: dict[int, Outcome] = {}
    tables: dict[tuple[Any, ...], _Table] = {}
    room = free_mib(shared.machine.device) / 2
    for leg in legs:
        its = open_leg(leg, shared)
        if isinstance(its, Outcome):
            found[leg.trial] = its
            continue
        room -= sum(count(it.made.model)[1] for it in its) * 4 * COPIES / 2**20
        key = _key(leg, its, shared)
        if key in shared.refused or not all(_joins(it, tables.get(key)) for it in its):
            found[leg.trial] = carry_on(leg, its)
        elif room > 0 or not tables:
            tables.setdefault(key, _Table()).legs.append((leg, its))
    for key, table in tables.items():
        try:
            found.update(table.advance())
        except (NotSupported, TrainingFailed):  # carried alone, each says whether it is at fault
            shared.refused.add(key)
            found.update({leg.trial: carry(leg, shared) for leg, _ in table.legs})
    rest = [leg for leg in legs if leg.trial not in found]  # memory had no room for them
    if rest:
        found.update({one.trial: one for one in carry_together(rest, shared)})
    return [found[leg.trial] for leg in legs]


def _key(leg: Leg, its: list[Training], shared: Pool) -> tuple[Any, ...]:
    """What legs of one bank have in common."""
    spec, kind = leg.spec, company(its[0])
    if kind != ADAPTERS and shared.folds:  # states of other rows
        kind = ""
    return kind, spec.origin, spec.data.max_length, spec.train.dropout, spec.train.micro_tokens


def _joins(it: Training, table: _Table | None) -> bool:
    """Let a run's base lie where that of the table's first run does; False where they differ."""
    if table is None:
        return bool(company(it))
    first = table.legs[0][1][0]
    return not share_weights(it.made.model.trunk, bare(first.made.model.trunk))
