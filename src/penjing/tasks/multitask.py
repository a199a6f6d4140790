"""Several tasks at once on one base: one trunk, a head each; every text is answered by all of them.

Legend: S sequences, T tokens, m tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from penjing import plugin
from penjing.data.multitask import APART, Slot, dealt, own_names, own_places, own_rows, shares, together
from penjing.data.parts import part_of, rows_of
from penjing.data.read import read
from penjing.errors import DataError, SpecError, nearest
from penjing.models.load import Base
from penjing.models.many import Acting, Heads
from penjing.plugin import Choice
from penjing.records import Batch, Loss, Part, Rows, Scores, Tokens
from penjing.task import Each, Fitted, Task
from penjing.tasks_key import OF_TASK


@dataclass(frozen=True)
class Member:
    """One of the tasks: its name here, how its rows are read, and its loss's weight."""

    name: str
    task: Task
    choice: Choice
    reading: Mapping[str, str]
    weight: float


@dataclass(frozen=True)
class Found:
    """What one task predicts, and which of all rows that is of."""

    found: Any
    rows: np.ndarray
    n: int  # of all rows


def multitask(
    *,
    of: dict[str, Any],
    temperature: float = 1.0,
    balance: Literal["fixed", "uncertainty"] = "fixed",
) -> Task:
    """Learn several tasks at once, each with rows of its own or all from one file.

    of: name -> task, `{intent: classify, slots: tag}`, or `{task:, text:, label:, weight:}`, columns and the
    loss's weight. temperature: of the tasks' shares of the steps; 1: by size; larger: more even. balance: how
    losses are weighed: as given, or learned by each task's uncertainty (Kendall et al. 2018, arXiv
    1705.07115).
    """
    if len(of) < 2:
        raise SpecError(
            f"`multitask.of` must name two tasks or more; it names {len(of)}. For one say `task:` alone."
        )
    if not temperature > 0:
        raise SpecError(f"`multitask.temperature` must be above 0; it is {temperature:g}. 1 goes by size.")
    members = [_member(name, asked) for name, asked in of.items()]
    return _made(members, temperature, balance)


def _member(name: str, asked: Any) -> Member:
    key = f"multitask.of.{name}"
    said = asked if isinstance(asked, dict) and "task" in asked else {"task": asked}
    for own in said:
        if own not in OF_TASK:
            raise SpecError(
                f"`{key}.{own}` is not a key of a task.{nearest(own, OF_TASK)} Keys: {', '.join(OF_TASK)}."
            )
    if APART in name or not name:
        raise SpecError(f"`{key}`: a task's name must be plain, without `{APART}`. Give it another.")
    picked = plugin.choice(said["task"], kind="tasks", key=key)
    task: Task = plugin.build("tasks", picked)
    why = _why_not(task, picked)
    if why:
        raise SpecError(f"`{key}` is `{picked.name}`, which {why}. Run it by itself.")
    weight = said.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise SpecError(f"`{key}.weight` must be a number above 0; it is {weight!r}. 1 is usual.")
    reading = {k: str(said[k]) for k in ("text", "label") if said.get(k) is not None}
    return Member(name, task, picked, reading, float(weight))


def _why_not(task: Task, picked: Choice) -> str:
    """Why a task cannot share a trunk with others; empty where it can."""
    if task.feed:
        return "reads a corpus, not rows"
    if task.sees or task.whole or task.speaks:
        return "needs a base of its own kind"
    if task.fit or task.draw or not task.learns or picked.name == "multitask":
        return "does not learn a head step by step"
    return ""


def _made(members: Sequence[Member], temperature: float, balance: str) -> Task:
    """The task over these members, who know the base and their train rows or do not yet."""
    tasks = [one.task for one in members]

    def rows(source: Any, *, labelled: bool = True, **reading: Any) -> Rows:
        _refuse_strange(source, members)
        own = source if isinstance(source, Mapping) else {one.name: source for one in members}
        found = {one.name: _read(one, own[one.name], labelled, reading) for one in members if one.name in own}
        whole = {one.name: found.get(one.name) or _none_of(found) for one in members}
        return together(whole, shared=not isinstance(source, Mapping))

    def measure(rows: Rows, names: list[str]) -> Task:
        def known(k: int, one: Member) -> Task:
            own, _ = own_rows(rows, k)
            return one.task.measure(own, own_names(names, one.name)) if one.task.measure else one.task

        return _made(
            [replace(one, task=known(k, one)) for k, one in enumerate(members)], temperature, balance
        )

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        def fit(one: Member) -> Task:
            if not one.task.bind:
                return one.task
            own = one.task.bind(base, own_names(names, one.name), weights=weights)
            return replace(own, settled={**one.task.settled, **own.settled})

        return _made([replace(one, task=fit(one)) for one in members], temperature, balance)

    def head(width: int, names: list[str], pooling: str, dense: nn.Linear | None) -> nn.Module:
        own = [
            one.task.head(width, own_names(names, one.name), pooling, copy.deepcopy(dense)) for one in members
        ]
        return Heads(own, doubts=balance == "uncertainty")

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool) -> Part:
        found, notes = [], [*rows.notes]
        for k, one in enumerate(members):
            own, _ = own_rows(rows, k)
            theirs = own_names(names, one.name)
            made = part_of(one.task, base, own, theirs, max_length, labelled=labelled, weigh=labelled)
            found.append(replace(made, kind=k))
            notes += [f"{one.name}: {note}" for note in made.rows.notes[len(own.notes) :]]
        rows = replace(rows, notes=tuple(notes))
        targets = np.empty(len(found), dtype=object)
        targets[:] = [one.targets for one in found]
        return Part(rows, _end_to_end([one.tokens for one in found]), targets, members=tuple(found))

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        targets = np.empty(len(members), dtype=object)
        for k, one in enumerate(members):
            targets[k] = one.task.encode(own_rows(rows, k)[0], own_names(names, one.name))
        return targets

    def order(part: Part, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
        sizes = [len(one) for one in part.members]
        return dealt(sizes, shares(sizes, temperature), batch=batch, seed=seed, epoch=epoch)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        one = members[batch.kind]
        acting: Any = Acting(model, batch.kind)
        found = one.task.loss(acting, batch)
        mean = one.weight * found.mean
        doubts = acting.all.doubts
        if doubts is not None:
            mean = mean * torch.exp(-doubts[batch.kind]) + 0.5 * doubts[batch.kind]
        parts = {one.name: float(found.mean.detach())}
        return replace(
            found, mean=mean, parts={**parts, **{f"{one.name} {k}": v for k, v in found.parts.items()}}
        )

    def infer(model: nn.Module, each: Each, part: Part) -> list[Found]:
        found = []
        for k, (one, own) in enumerate(zip(tasks, part.members, strict=True)):
            there = own_places(part.rows, k)
            found.append(Found(_inferred(one, Acting(model, k), each, own), there, len(part.rows)))
        return found

    def score(
        found: list[Found], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        tables: dict[str, Any] = {}
        each: list[float] = []
        for one, own, wanted in zip(members, found, targets, strict=True):
            if not len(own.rows):
                continue
            theirs = own_names(names, one.name)
            scores = one.task.score(own.found, wanted, theirs, chosen.get(one.name, {}), seed)
            best = scores.values[one.task.best]
            each.append(-best if one.task.lower else best)
            values |= {f"{one.name}_{key}": value for key, value in scores.values.items()}
            intervals |= {f"{one.name}_{key}": pair for key, pair in scores.intervals.items()}
            tables |= {f"{one.name}_{key}": table for key, table in scores.tables.items()}
        return Scores({"mean": float(np.mean(each)) if each else 0.0, **values}, intervals, tables)

    def tune(found: list[Found], targets: np.ndarray) -> dict[str, Any]:
        return {
            one.name: one.task.tune(own.found, wanted)
            for one, own, wanted in zip(members, found, targets, strict=True)
            if len(own.rows)
        }

    def answers(found: list[Found], names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = [{} for _ in range(found[0].n)]
        for one, own in zip(members, found, strict=True):
            if len(own.rows):
                theirs = own_names(names, one.name)
                own_said = one.task.answers(own.found, theirs, chosen.get(one.name, {}))
                for row, answer in zip(own.rows, own_said, strict=True):
                    said[row][one.name] = answer
        return said

    def say(answer: dict[str, Any]) -> str:
        own = [(one, answer[one.name]) for one in members if one.name in answer]
        return "\t".join(f"{one.name}: {' '.join(one.task.say(theirs).split())}" for one, theirs in own)

    def mistakes(
        found: list[Found], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
    ) -> list[dict[str, Any]]:
        wrong = []
        for k, (one, own) in enumerate(zip(members, found, strict=True)):
            if one.task.mistakes and len(own.rows):
                about = own_rows(rows, k)[0], targets[k], own_names(names, one.name), chosen.get(one.name, {})
                wrong += [{"task": one.name, **m} for m in one.task.mistakes(own.found, *about)]
        return wrong

    def baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], Any]:
        return _baseline(members, rows, targets, names, seed)

    def reference(part: Part, names: list[str]) -> dict[str, Any]:
        own = zip(members, part.members, strict=True)
        pairs = [(one, theirs) for one, theirs in own if one.task.reference]
        return {one.name: one.task.reference(theirs, own_names(names, one.name)) for one, theirs in pairs}  # type: ignore[misc]

    return Task(
        name="multitask",
        rows=rows,
        ask=lambda inputs: _asked(members, inputs),
        label_names=lambda rows: [
            one.name + APART + name
            for k, one in enumerate(members)
            for name in one.task.label_names(own_rows(rows, k)[0])
        ],
        encode=encode,
        part=part,
        order=order,
        joint=any(task.joint for task in tasks),
        vary=lambda part, rows, seed: _own_part(tasks, part, rows, seed),
        measure=measure,
        bind=bind,
        settled={"of": {one.name: _settled(one) for one in members}},
        notes=tuple(f"{one.name}: {note}" for one in members for note in one.task.notes),
        head=head,
        loss=loss,
        infer=infer,
        score=score,
        tune=tune,
        answers=answers,
        say=say,
        mistakes=mistakes,
        baseline=baseline if all(task.baseline for task in tasks) else None,
        reference=reference,
        untuned="own",
        best="mean",
    )


def _settled(one: Member) -> dict[str, Any]:
    """What a task's rows and base decided, as its settings, for the card."""
    choice = Choice(one.choice.name, {**one.choice.settings, **one.task.settled})
    return {"task": choice.written(), **one.reading, "weight": one.weight}


def _refuse_strange(source: Any, members: Sequence[Member]) -> None:
    names = [one.name for one in members]
    for name in source if isinstance(source, Mapping) else ():
        if name not in names:
            raise SpecError(
                f"`data` names rows of a task `{name}`; `multitask.of` has {', '.join(names)}."
                f"{nearest(name, names)} Name those."
            )


def _read(one: Member, source: Any, labelled: bool, reading: dict[str, Any]) -> Rows:
    own = {**reading, **one.reading}
    if one.task.rows:
        return one.task.rows(source, labelled=labelled, **own)
    return read(source, labelled=labelled, multi_label=one.task.multi_label, **own)


def _none_of(found: Mapping[str, Rows]) -> Rows:
    """No rows, for a task that a split says nothing of."""
    return next(iter(found.values())).take([])


def _asked(members: Sequence[Member], inputs: Sequence[Any]) -> Rows:
    """Rows of what is asked: all tasks of each input, or those that a mapping by their names holds."""
    names = {one.name for one in members}
    by_name = [one if isinstance(one, Mapping) and one.keys() <= names else None for one in inputs]
    slots: list[list[Slot | None]] = [[None] * len(members) for _ in inputs]
    texts = [""] * len(inputs)
    for k, one in enumerate(members):
        there = [i for i, own in enumerate(by_name) if own is None or one.name in own]
        given = [inputs[i] if by_name[i] is None else by_name[i][one.name] for i in there]  # type: ignore[index]
        if not given:
            continue
        try:
            rows = (one.task.ask or rows_of)(given)
        except DataError as error:
            raise DataError(
                f"`{one.name}` cannot be asked so: {error} Inputs for one task only are given by its name: "
                f"{{{one.name!r}: …}}."
            ) from error
        for j, i in enumerate(there):
            slots[i][k] = Slot((), None if rows.items is None else rows.items[j])
            texts[i] = texts[i] or rows.texts[j]
    n = len(inputs)
    places = np.zeros(n, np.int32), np.arange(1, n + 1)
    return Rows(texts, [()] * n, ("the inputs given",), *places, (), [tuple(row) for row in slots])


def _own_part(tasks: Sequence[Task], part: Part, rows: np.ndarray, seed: int) -> Part:
    """The rows of a step as the one task sees them that they are of; of a mixed lot, the first one's."""
    ends = np.cumsum([len(one) for one in part.members])
    k = int(np.searchsorted(ends, rows[0], side="right"))
    begin = int(ends[k]) - len(part.members[k])
    own = rows[(rows >= begin) & (rows < ends[k])] - begin
    member, vary = part.members[k], tasks[k].vary
    if vary is not None:
        return replace(vary(member, own, seed), kind=k)
    return replace(
        member,
        tokens=member.tokens.take(own),
        targets=member.targets[own] if len(member.targets) == len(member) else member.targets,
        weights=None if member.weights is None else member.weights[own],
        marks=None if member.marks is None else member.marks[own],
        owners=None,
    )


def _inferred(task: Task, acting: Any, each: Each, part: Part) -> Any:
    """What one task predicts of its own part."""
    if task.infer:
        return task.infer(acting, each, part)
    outputs = each(part, lambda batch: acting(batch).float().cpu())
    return task.probabilities(torch.stack(outputs) if outputs else torch.empty(0, 0))


def _end_to_end(each: Sequence[Tokens]) -> Tokens:
    """All tasks' sequences in one row, by which steps are dealt and costs foretold."""
    starts = np.concatenate([[0], np.cumsum(np.concatenate([one.lengths for one in each]))])
    ids = np.concatenate([one.ids.astype(np.int64) for one in each])
    return Tokens(ids, starts.astype(np.int64), sum(one.cut for one in each))


def _baseline(
    members: Sequence[Member], rows: Rows, targets: np.ndarray, names: list[str], seed: int
) -> Fitted:
    """Each task's own baseline on its own rows."""
    fitted: list[Any] = []
    for k, one in enumerate(members):
        assert one.task.baseline is not None
        theirs = own_names(names, one.name)
        fitted.append(one.task.baseline(own_rows(rows, k)[0], targets[k], theirs, seed))

    def predict(rows: Rows) -> list[Found]:
        own = [own_rows(rows, k) for k in range(len(members))]
        return [
            Found(fit(theirs), there, len(rows)) for fit, (theirs, there) in zip(fitted, own, strict=True)
        ]

    notes = [
        (one.name, note)
        for one, fit in zip(members, fitted, strict=True)
        for note in getattr(fit, "notes", ())
    ]
    return Fitted(predict, tuple(f"{name}: {note}" for name, note in notes))
