"""Distillation: a student learns what a teacher answers, and what it thinks on the way.

(1 - a) L + a T^2 KL of outputs softened by T (Hinton et al. 2015, arXiv 1503.02531), plus distances of hidden
states (DistilBERT, TinyBERT) and of relations between tokens (MiniLM): models/distilling.py has the formulas.
Where rows do not change, teachers are asked once, before the first step, and cost none of them.

Legend: N outputs, C classes or numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penjing.data.batches import cut, lengths_of, packed, steps
from penjing.data.noised import noised
from penjing.errors import NotSupported, PenjingError, SpecError
from penjing.models import distilling, teachers
from penjing.models.comparing import Compared, compare, of_relations, of_states
from penjing.models.teachers import Table
from penjing.plural import counted
from penjing.records import Batch, Beside, Loss, Outset, Part, Technique

UNLABELLED, CHANGED = -1, -2  # kinds of batches from which only the teacher's losses are learned


def distill(
    *,
    teacher: str | list[str] | None = None,
    alpha: float = 0.5,
    temperature: float = 2.0,
    hidden: float = 0.0,
    relations: float = 0.0,
    layers: Literal["even", "last"] | list[int] = "even",
    distance: Literal["cosine", "squares"] = "cosine",
    pairs: list[Literal["qk", "qq", "kk", "vv"]] | None = None,
    heads: int | None = None,
    inherit: bool = False,
    unlabelled: str | list[str] | None = None,
    ratio: float = 1.0,
    augment: Literal["mask", "swap", "drop"] | None = None,
    rate: float = 0.1,
) -> Technique:
    """Learn from a teacher: a run or bundle, or several, whose mean outputs teach.

    teacher: that which the base was taken from, when not given. alpha: weight of the teacher's outputs; the
    labels keep 1 - alpha. temperature: that softens both. hidden: weight of the distance of hidden states.
    relations: weight of that of relations between tokens in the last layer. layers: of the teacher, for
    hidden states: `even`, `last`, or one a layer of the student (0: none). distance: of hidden states;
    learned maps make widths equal. pairs: what is related, of queries, keys and values; [qk, vv] when not
    given. heads: of relations; the teacher's when not given. inherit: begin with the teacher's head.
    unlabelled: files of rows from which only the teacher's losses are learned. ratio: such rows a labelled
    one. augment: learn every row a second time, from the teacher alone, with words masked, swapped or
    dropped. rate: share of such words.
    """
    related = tuple(pairs or ("qk", "vv"))
    asked = _Asked(alpha, temperature, hidden, relations, layers, distance, related, heads)
    _check(asked, pairs, ratio, rate)
    if not (alpha or hidden or relations):
        return Technique("distill")
    progress = _Progress()
    held: list[_Lesson] = []
    names = tuple(teacher) if isinstance(teacher, list) else (teacher,)
    more = (1 + (ratio if unlabelled is not None else 0)) * (1 if augment is None else 2) - 1
    beside = Beside(names, asked.deep or augment is not None, more)

    def begin(outset: Outset) -> None:
        opened = _opened(asked, names, outset, packs=augment is not None)
        progress.teachers = teachers.identity(opened)
        if augment:
            _refuse_changes(augment, outset)
        if inherit:
            _inherit(opened, outset)
        strangers = None
        if unlabelled is not None:
            strangers = teachers.stand_in(outset.read(unlabelled), outset.train)
            outset.tell(f"{counted(len(strangers), 'row')} without labels to learn from the teacher alone")
        held[:] = [_lesson(asked, opened, outset, strangers, live=augment is not None)]

    def stream(batches: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        dealt = _more(held[0], ratio, augment, rate, start=progress.step)
        for own in batches:
            progress.step += 1
            yield [*own, *dealt(own, progress.step)]

    def loss(model: nn.Module, batch: Batch, found: Loss) -> Loss:
        return _loss(asked, held[0], model, batch, found)

    mixes = unlabelled is not None or augment is not None
    mixed = stream if mixes else None
    return Technique("distill", begin=begin, stream=mixed, loss=loss, state=progress, beside=beside)


@dataclass(frozen=True)
class _Asked:
    """The settings of the losses."""

    alpha: float
    temperature: float
    hidden: float
    relations: float
    layers: str | list[int]
    distance: str
    pairs: tuple[str, ...]
    heads: int | None

    @property
    def deep(self) -> bool:
        """True where layers are looked into, so that the teacher runs beside every step."""
        return bool(self.hidden or self.relations)


@dataclass
class _Progress:
    """What an exact resume needs: the steps whose rows were dealt, and who taught."""

    step: int = 0
    teachers: str = ""

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "teachers": self.teachers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state and state["teachers"] != self.teachers:
            raise NotSupported(
                f"The run was begun with other teachers (SHA-256 of their files {state['teachers'][:16]}…; "
                f"now {self.teachers[:16]}…). Put the old ones back to resume, or start a new run."
            )
        self.step = int(state.get("step", 0))


@dataclass(frozen=True)
class _Lesson:
    """Teachers at hand, and what was made of them before the first step."""

    outset: Outset
    strangers: Part | None  # rows without labels
    tables: dict[int, Table]  # their outputs, by kind of batch
    live: tuple[Any, ...] = ()  # those that run beside a step
    compared: Compared | None = None  # layers


# ---- before the first step


def _opened(asked: _Asked, names: Sequence[str | None], outset: Outset, *, packs: bool) -> list[Any]:
    """The teachers.

    Raises:
        SpecError, NotSupported: they cannot teach this student.
    """
    task = outset.task
    if asked.deep and len(names) > 1:
        raise SpecError(
            f"`distill.hidden` and `distill.relations` look into one teacher; {len(names)} are named. Name "
            "one, or leave both at 0 and learn from the mean of the outputs."
        )
    if asked.alpha and not task.outputs:
        raise NotSupported(
            f"`distill.alpha` is {asked.alpha:g}: a teacher's outputs were to be learned; those of `task: "
            f"{task.name}` as set are no scores of classes and no numbers. Set `alpha: 0`, and `hidden` or "
            "`relations` above 0."
        )
    opened = [_open(outset, name) for name in names]
    packs = packs or asked.deep or task.vary is not None or task.infer is not None
    for name, one in zip(names, opened, strict=True):
        called = name or outset.base.name
        teachers.refuse_unlike(called, one, outset, answers=bool(asked.alpha), packs=packs)
        if asked.deep and not hasattr(one.model, "trunk"):
            raise NotSupported(
                f"One model was wanted, to look into its layers; {called} is an ensemble. Name one of its "
                "members, or learn from outputs alone."
            )
    return opened


def _open(outset: Outset, name: str | None) -> Any:
    try:
        return outset.open(name)
    except PenjingError as error:
        if name is None:
            raise
        raise NotSupported(f"A run or bundle was wanted as `distill.teacher: {name}`. {error}") from error


def _lesson(
    asked: _Asked, opened: list[Any], outset: Outset, strangers: Part | None, *, live: bool
) -> _Lesson:
    """Ask what can be asked once, and prepare to look into layers."""
    changing = asked.deep or outset.task.vary is not None
    tables: dict[int, Table] = {}
    if asked.alpha and not changing:
        outset.tell("the teacher is asked once for its outputs of all rows")
        tables[0] = teachers.asked_once(opened, outset.train, outset)
        if strangers is not None:
            tables[UNLABELLED] = teachers.asked_once(opened, strangers, outset)
    compared = None
    if asked.deep:
        wanted = asked.layers if asked.hidden else None
        compared = compare(opened[0], outset, wanted, related=bool(asked.relations))
    return _Lesson(outset, strangers, tables, tuple(opened) if live or changing else (), compared)


def _refuse_changes(augment: str, outset: Outset) -> None:
    words = outset.base.tokenizer
    if words is None or outset.task.feed or (augment == "mask" and words.mask_token_id is None):
        have = "reads images" if words is None else "reads a corpus" if outset.task.feed else "has no mask"
        raise NotSupported(
            f"`distill.augment: {augment}` changes words of rows; `{outset.base.name}` {have}. Leave it out, "
            "or take `swap` where only a mask is lacking."
        )
    if augment == "drop" and outset.train.marks is not None:
        raise NotSupported(
            f"`distill.augment: drop` moves what stands behind a word; `task: {outset.task.name}` keeps "
            "places in its rows. Take `mask` or `swap`."
        )


def _inherit(opened: list[Any], outset: Outset) -> None:
    own = outset.model.head
    state = opened[0].model.head.state_dict() if len(opened) == 1 else {}
    if {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in state.items()}:
        own.load_state_dict(state)
    else:
        outset.tell("the teacher's head does not fit the student, whose head begins anew")


# ---- each step


def _more(
    lesson: _Lesson, ratio: float, augment: str | None, rate: float, *, start: int
) -> Callable[[list[Batch], int], list[Batch]]:
    """What stands beside a step's own batches, from step `start` on."""
    outset, part, words = lesson.outset, lesson.strangers, lesson.outset.base.tokenizer
    dealt = None
    if part is not None:
        size = max(1, min(len(part), round(ratio * outset.batch)))
        lengths = lengths_of(part)
        dealt = steps(lengths, batch=size, seed=outset.seed, group=outset.grouped, start=start)

    def more(own: list[Batch], number: int) -> list[Batch]:
        found: list[Batch] = []
        if part is not None and dealt is not None:
            pieces = cut(next(dealt), lengths, tokens=outset.tokens)
            found = [replace(packed(part, piece), kind=UNLABELLED) for piece in pieces]
        if augment is None:
            return found
        noise = partial(noised, how=augment, share=rate, special=set(words.all_special_ids))
        changed = [
            noise(one, mask=words.mask_token_id, seed=[outset.seed, number, i])
            for i, one in enumerate([*own, *found])
        ]
        return found + [replace(one, kind=CHANGED) for one in changed]

    return more


def _loss(asked: _Asked, lesson: _Lesson, model: nn.Module, batch: Batch, found: Loss) -> Loss:
    """The loss so far with the teacher's parts; of rows without labels these alone."""
    labelled = batch.kind >= 0
    mean = found.mean * (1 - asked.alpha) if labelled else found.mean.new_zeros(())
    parts = {**found.parts, "labels": float(found.mean.detach())} if labelled else {}
    table = lesson.tables.get(batch.kind)
    theirs = _ask(asked, lesson, batch) if table is None else table.of(batch.rows).to(batch.ids.device)
    if asked.alpha:
        assert theirs is not None
        assert found.outputs is not None
        own = _of_outputs(asked, lesson, batch, teachers.chosen(found.outputs.float(), batch), theirs)
        mean, parts["outputs"] = mean + asked.alpha * own, float(own.detach())
    compared = lesson.compared
    if compared is not None:
        if asked.hidden:
            own = of_states(compared, model, batch, asked.distance)
            mean, parts["hidden"] = mean + asked.hidden * own, float(own.detach())
        if asked.relations:
            own = of_relations(compared, batch, asked.pairs, asked.heads)
            mean, parts["relations"] = mean + asked.relations * own, float(own.detach())
        compared.forget()
    return Loss(mean, parts, found.outputs)


@torch.no_grad()
def _ask(asked: _Asked, lesson: _Lesson, batch: Batch) -> Tensor | None:
    """The mean of the teachers' outputs of a batch, where they are learned; watched layers are run anyway."""
    if not asked.alpha:
        lesson.live[0].model.states(replace(batch, states=None, vectors=None))
        return None
    outset = lesson.outset
    each = [teachers.as_ours(teachers.raw(outset.task, one.model, batch), one, outset) for one in lesson.live]
    return torch.stack(each).mean(0).to(batch.ids.device)


def _of_outputs(asked: _Asked, lesson: _Lesson, batch: Batch, ours: Tensor, theirs: Tensor) -> Tensor:
    if ours.shape != theirs.shape:
        raise NotSupported(
            f"Teacher and student were to give as many outputs; the teacher gives {tuple(theirs.shape)} of a "
            f"batch, the student {tuple(ours.shape)}. Set the student's task as the teacher's is."
        )
    each = distilling.outputs_apart(ours, theirs, lesson.outset.task.outputs, asked.temperature)
    if len(each) == len(batch.rows):
        return distilling.mean_of_rows(each, batch)
    return each.sum() / max(batch.n_targets, 1e-12)


def _check(asked: _Asked, pairs: Any, ratio: float, rate: float) -> None:
    """Settings in their ranges.

    Raises:
        SpecError: one is not.
    """
    for name, value, most in (
        ("alpha", asked.alpha, 1.0),
        ("hidden", asked.hidden, float("inf")),
        ("relations", asked.relations, float("inf")),
        ("rate", rate, 1.0),
    ):
        if not 0 <= value <= most:
            raise SpecError(
                f"`distill.{name}` must lie between 0 and {most:g}; it is {value:g}. Leave it out."
            )
    for name, value in (("temperature", asked.temperature), ("ratio", ratio), ("heads", asked.heads or 1)):
        if not value > 0:
            raise SpecError(f"`distill.{name}` must be above 0; it is {value:g}. Leave it out.")
    given = {"pairs": pairs is not None, "heads": asked.heads is not None}
    idle = [name for name, said in given.items() if said and not asked.relations]
    idle += ["layers"] if asked.layers != "even" and not asked.hidden else []
    if idle:
        of = "hidden" if idle[0] == "layers" else "relations"
        raise SpecError(
            f"`distill.{idle[0]}` is given, and `distill.{of}` is 0, so it would be ignored. Drop one."
        )
