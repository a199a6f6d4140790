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
from penjing.jobs.together import advance_together, company
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


def carry_oldest(legs: Sequence[Leg], shared: Pool) -> list[Outcome]:
    """As `trial.carry`, for the first of these legs and for those that can train with it at once.

    Raises:
        CannotWrite: no trial could be written.
    """
    oldest, *others = legs
    its = open_leg(oldest, shared)
    if isinstance(its, Outcome):
        return [its]
    key = _key(oldest, its)
    if key in shared.refused or not all(company(it) for it in its):
        return [carry_on(oldest, its)]
    table = _Table([(oldest, its)])
    room = free_mib(shared.machine.device) / 2 - _mib(its)
    for leg in others:
        if room <= 0:
            break
        if _asked(leg.spec) != _asked(oldest.spec):
            continue
        its = open_leg(leg, shared)
        if isinstance(its, Outcome):  # opened again when it is due
            continue
        room -= _mib(its)
        if room > 0 and _key(leg, its) == key and all(_joins(it, table) for it in its):
            table.legs.append((leg, its))
    try:
        return list(table.advance().values())
    except (NotSupported, TrainingFailed):  # carried alone, each says whether it is at fault
        shared.refused.add(key)
        return [carry(oldest, shared)]


def _mib(its: list[Training]) -> float:
    """What a leg's runs hold beside the base that all share."""
    return sum(count(it.made.model)[1] for it in its) * 4 * COPIES / 2**20


def _asked(spec: Spec) -> tuple[Any, ...]:
    """What legs of one bank have in common by their specs, told before anything of them is opened."""
    train = spec.train
    return spec.method.name, spec.origin, spec.data.max_length, train.dropout, train.micro_tokens


def _key(leg: Leg, its: list[Training]) -> tuple[Any, ...]:
    """What legs of one bank have in common."""
    return company(its[0]), *_asked(leg.spec)


def _joins(it: Training, table: _Table) -> bool:
    """Let a run's base lie where that of the table's first run does; False where they differ."""
    first = table.legs[0][1][0]
    return not share_weights(it.made.model.trunk, bare(first.made.model.trunk))
