"""A head for other labels than it learned: what it knows of a label goes along under the label's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing import plugin
from penjing.bundle import Bundle
from penjing.bundle_card import HEAD, tensors
from penjing.bundle_parts import dense_of
from penjing.errors import NotSupported
from penjing.models.model import Model
from penjing.plugin import choice
from penjing.task import Task

CLOSED = -1e4  # logit of what a head has not learned: no answer, in any type
ALL = "all"  # places along a dimension that is not by label
UNKNOWN = 0.5  # what is chosen of a label on rows that do not have it

Names = Sequence[Sequence[str]]


def put_by_name(path: Path, head: nn.Module, before: Names, names: Names, *, closed: bool = False) -> None:
    """Put a head's saved tensors into a head whose last layers give other `names`; new ones stay as they
    begin, or never win where `closed`.

    Raises:
        NotSupported: a tensor has no place in this head.
    """
    own, pairs = head.state_dict(keep_vars=True), [*zip(before, names, strict=True)]
    with torch.no_grad():
        for name, tensor in tensors(path).items():
            if name not in own:
                raise misfit(path, f"`{name}` is not in this head")
            mine = own[name]
            places = [*map(partial(_places, pairs), tensor.shape, mine.shape)]
            if tensor.ndim != mine.ndim or None in places:
                raise misfit(path, f"`{name}` is {tuple(tensor.shape)}, here {tuple(mine.shape)}")
            if "dense" in name.split(".") or all(place == ALL for place in places):
                mine.copy_(tensor)  # whatever the labels
                continue
            if closed:
                mine.fill_(CLOSED if mine.ndim == 1 else 0.0)
            for dim, place in enumerate(places):
                if place != ALL:
                    tensor = tensor.index_select(dim, torch.tensor(place[0]))
            ends = [
                torch.arange(n) if place == ALL else torch.tensor(place[1])
                for n, place in zip(mine.shape, places, strict=True)
            ]
            mine[torch.meshgrid(*ends, indexing="ij")] = tensor.to(mine)


def _places(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], n: int, n_new: int) -> Any:
    """Along a dimension of n places: those that go along, and where to; None where they fit nowhere."""
    for old, new in pairs:
        if len(old) == n and len(new) == n_new and [*old] != [*new]:
            at = {name: i for i, name in enumerate(new)}
            both = [(i, at[name]) for i, name in enumerate(old) if name in at]
            return [i for i, _ in both], [j for _, j in both]
    return ALL if n == n_new else None


def outlets(task: Task, names: list[str]) -> list[list[str]]:
    """The names of what the last layers of a task's head give."""
    return task.outlets(names) if task.outlets else [names]


def widened(bundle: Bundle, names: list[str]) -> Bundle:
    """The bundle as one that has heard of these labels and never answers those it did not learn; its model's
    head is exchanged in place.

    Raises:
        NotSupported: an ensemble.
    """
    if names == bundle.labels:
        return bundle
    if not isinstance(bundle.model, Model):
        raise NotSupported(
            f"One model was wanted, to set beside one with more labels; {bundle!r} is several. Let one model "
            "learn from it."
        )
    card = bundle.card
    task: Task = plugin.build("tasks", choice(card["task"], kind="tasks", key="task"))
    task = task.bind(bundle.base, names, weights=False) if task.bind else task
    head = task.head(bundle.base.width, names, card["base"]["pooling"], dense_of(bundle.base, card))
    before = outlets(task, bundle.labels)
    put_by_name(bundle.folder / HEAD, head, before, outlets(task, names), closed=True)
    bundle.model.head = head.to(bundle.machine.device).requires_grad_(False).eval()
    chosen = {key: _by_name(value, bundle.labels, names) for key, value in card["chosen"].items()}
    return replace(bundle, card={**card, "labels": names, "chosen": chosen}, task=task)


def _by_name(value: Any, before: list[str], names: list[str]) -> Any:
    """A number a label, such as thresholds, in the order of other labels."""
    if not isinstance(value, list) or len(value) != len(before):
        return value
    known = dict(zip(before, value, strict=True))
    return [known.get(name, UNKNOWN) for name in names]


def misfit(place: Path, said: str) -> NotSupported:
    """What a parent holds has no place here."""
    return NotSupported(
        f"What {place} holds was to be learned further; it does not fit the model of this spec "
        f"({said[:200]}). Give the method the settings that the parent had, as its card.json says, or leave "
        "`parent` out."
    )
