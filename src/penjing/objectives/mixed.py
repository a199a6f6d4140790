"""Several objectives on one model: steps take turns, each objective in its share of them.

The trunk is shared, each has its own head. `[masked, next_sentence]` is BERT's pair, `[masked,
sentence_order]` ALBERT's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from penjing import plugin
from penjing.errors import SpecError
from penjing.models.load import Base
from penjing.models.many import Acting, Heads
from penjing.records import Batch, Loss, Part, Scores
from penjing.task import Each, Feed, Task

# What `train` says where the spec says nothing.
TRAIN = {"batch": 16, "schedule": "cosine", "betas": [0.9, 0.98], "lr": 5e-4, "warmup": 0.06}


def mixed(*, of: list[Any], shares: list[float] | None = None) -> Task:
    """Learn several objectives at once.

    of: objectives, each a name or `{name: {setting: value}}`. shares: of the steps, one an objective; even
    when not given.
    """
    if len(of) < 2:
        raise SpecError(
            f"`mixed.of` must name two objectives or more; it names {len(of)}. `penjing list objectives` "
            "shows those there are."
        )
    if any(one == "mixed" or (isinstance(one, dict) and "mixed" in one) for one in of):
        raise SpecError("`mixed.of` names `mixed` itself. Name the objectives that it holds.")
    choices = [plugin.choice(one, kind="objectives", key="mixed.of") for one in of]
    made: list[Task] = [plugin.build("objectives", one) for one in choices]
    for one in made:
        if one.whole or one.sees:
            what = "images" if one.sees else "sources and answers"
            raise SpecError(
                f"`mixed.of` names `{one.name}`, which reads {what}; objectives on one model read pieces of "
                "one text. Train it by itself, before or after the others."
            )
    given = shares or [1.0] * len(of)
    if len(given) != len(of) or not all(0 < share < float("inf") for share in given):
        raise SpecError(
            f"`mixed.shares` must give each of the {len(of)} objectives a share above 0; it is {given}. Give "
            f"{len(of)} numbers, or leave it out."
        )
    parts = [share / sum(given) for share in given]

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        members = _named([one.bind(base, names, weights=weights) if one.bind else one for one in made])
        return replace(
            task,
            head=lambda *shape: Heads([one.head(*shape) for one in members]),
            loss=lambda model, batch: _loss(members, model, batch),
            vary=lambda part, rows, seed: _vary(members, parts, part, rows, seed),
            infer=lambda model, each, part: _infer(members, model, each, part),
            score=lambda found, *rest: _score(members, parts, found, *rest),
            feed=_shared([one.feed for one in members]),
            show=lambda model, *rest: [
                shown
                for kind, one in enumerate(members)
                if one.show
                for shown in one.show(Acting(model, kind), *rest)
            ],
            joint=any(one.joint for one in members),
            notes=tuple(note for one in members for note in one.notes),
        )

    task = Task(
        name="mixed",
        head=_unbound,
        loss=_unbound,
        score=_unbound,
        best="loss",
        lower=True,
        untuned="own",
        bind=bind,
        feed=Feed(),
    )
    return task


def _named(members: Sequence[Task]) -> list[Task]:
    """Scores and losses stand under an objective's name; a second one of a name is `masked_2`."""
    names = [one.name for one in members]
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [
        one if n == 1 else replace(one, name=f"{one.name}_{n}")
        for one, n in zip(members, counts, strict=True)
    ]


def _unbound(*given: Any) -> Any:
    raise AssertionError("what `mixed` does, its members say, once they know the base")


def _shared(feeds: Sequence[Feed | None]) -> Feed:
    """One feed that serves all: they must want the same units of text."""
    known = [feed for feed in feeds if feed is not None]
    units = list(dict.fromkeys(feed.unit for feed in known))
    if len(units) > 1 or len({feed.ends for feed in known}) > 1:
        raise SpecError(
            f"`mixed.of` names objectives that read a corpus differently ({', '.join(units)}; ends of "
            "documents marked by some). Mix those that read it alike, or train one after the other."
        )
    taken = max(feed.taken for feed in known)
    return Feed(known[0].unit, taken, known[0].ends, any(feed.heads for feed in known))


def _vary(members: list[Task], shares: list[float], part: Part, rows: np.ndarray, seed: int) -> Part:
    """The step's objective, drawn by the shares, and the rows as it sees them."""
    kind = int(np.random.default_rng([seed, len(members)]).choice(len(members), p=shares))
    vary = members[kind].vary
    assert vary is not None
    return replace(vary(part, rows, seed), kind=kind)


def _loss(members: list[Task], model: Any, batch: Batch) -> Loss:
    one = members[batch.kind]
    acting: Any = Acting(model, batch.kind)
    found = one.loss(acting, batch)
    return replace(found, parts={**found.parts, one.name: float(found.mean.detach())})


def _infer(members: list[Task], model: nn.Module, each: Each, part: Part) -> list[Any]:
    found = []
    for kind, one in enumerate(members):
        assert one.infer is not None
        acting: Any = Acting(model, kind)
        found.append(one.infer(acting, each, part))
    return found


def _score(members: list[Task], shares: list[float], found: list[Any], *rest: Any) -> Scores:
    """Each objective's scores under its name; `loss` is their mean by shares."""
    each = [one.score(own, *rest) for one, own in zip(members, found, strict=True)]
    values = {"loss": sum(share * one.values["loss"] for share, one in zip(shares, each, strict=True))}
    for task, one in zip(members, each, strict=True):
        values |= {f"{task.name}_{name}": value for name, value in one.values.items()}
    pairs = [(task.name, one.tables) for task, one in zip(members, each, strict=True)]
    return Scores(
        values, {}, {f"{name}_{key}": table for name, found in pairs for key, table in found.items()}
    )
