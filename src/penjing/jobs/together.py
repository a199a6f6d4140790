"""Runs over one base carried at once by a bank, of LoRA or of heads on pooled states; at a validation each is
an ordinary run again.

The state a run saves is the one it would save alone, so it may be carried alone and together in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penjing.data import batches
from penjing.engine import optim
from penjing.engine.bank import BY_ELEMENT, Bank, LoraTrial
from penjing.engine.head_bank import HeadBank, HeadTrial, shape_of
from penjing.errors import TrainingFailed
from penjing.jobs.prepare import stream
from penjing.jobs.stopping import between_steps
from penjing.jobs.training import Training, due, judge, note
from penjing.models.adapters import why_alone
from penjing.models.heads import ClassHead
from penjing.records import Part, Step

ADAPTERS = "adapters"  # a company


def company(it: Training) -> str:
    """With whom a run can be carried: runs over one base that give the same text here; empty: with none.

    `adapters`: plain LoRA down to the lowest layer (else its frozen layers come from the trunk cache) with an
    optimizer by element. `heads …`: heads of one shape on pooled states that were kept. No techniques.
    """
    task, model = it.job.task, it.made.model
    if it.optimizer is None or it.made.techniques or it.scale or task.fit:
        return ""
    kept = it.train.tokens.kept
    if (
        kept is not None
        and kept.pooled
        and not (task.order or task.vary)
        and isinstance(model.head, ClassHead)
    ):
        return f"heads of {model.pools} {shape_of(model.head)}"
    adapters = isinstance(it.optimizer, BY_ELEMENT) and model.frozen is None and model.way.packed
    return ADAPTERS if adapters and not why_alone(model.trunk) else ""


def advance_together(untils: Mapping[str, tuple[Training, int]]) -> dict[str, TrainingFailed]:
    """Carry runs of one `company`, each up to its step; returns those that failed on the way, by name.

    Raises:
        NotSupported: they differ in the base or its dropout rates. Nothing has been trained then.
        TrainingFailed: memory ran out with a single run's batch.
    """
    going = {n: (it, last) for n, (it, last) in untils.items() if it.watch.step < last and not it.over}
    if not going:
        return {}
    first = next(iter(going.values()))[0]
    return _adapters(going) if company(first) == ADAPTERS else _heads(going)


def _adapters(going: Mapping[str, tuple[Training, int]]) -> dict[str, TrainingFailed]:
    first = next(iter(going.values()))[0]
    trials = {name: _trial(name, it, last) for name, (it, last) in going.items()}
    bank = Bank([*trials.values()], tokens=first.job.spec.train.micro_tokens)
    for name, trial in trials.items():
        _hand_over(_own(going[name][0]), trial.optimizer)

    def again(name: str, it: Training, last: int) -> None:
        _leave(it, bank.drop(name))
        _judged(it)
        if it.watch.step < last and not it.over:
            trials[name] = _trial(name, it, last)
            bank.add(trials[name])
            _hand_over(_own(it), trials[name].optimizer)

    _carry(going, bank.steps(), again)
    return bank.failed


def _heads(going: Mapping[str, tuple[Training, int]]) -> dict[str, TrainingFailed]:
    parts = {id(it.train.rows): it.train for it, _ in going.values()}  # one, or one a fold
    firsts = dict(zip(parts, np.cumsum([0, *map(len, parts.values())]).tolist(), strict=False))
    trials = [_head(name, it, last, firsts[id(it.train.rows)]) for name, (it, last) in going.items()]
    device = next(trials[0].model.head.parameters()).device
    weights = [part.weights for part in parts.values() if part.weights is not None]
    states = [_states(part) for part in parts.values()]
    bank = HeadBank(
        trials,
        (torch.cat(states) if len(states) > 1 else states[0]).to(device),
        np.concatenate([part.targets for part in parts.values()]),
        weights=np.concatenate(weights) if weights else None,
        lengths=np.concatenate([part.tokens.lengths for part in parts.values()]),
    )

    def again(name: str, it: Training, last: int) -> None:
        _judged(it)
        if it.over:
            bank.drop(name)

    _carry(going, bank.steps(), again)
    return bank.failed


def _states(part: Part) -> Tensor:
    """(n, D) pooled states of a part's rows."""
    assert part.tokens.kept is not None  # `company` looked
    return part.tokens.kept.of(np.arange(len(part.tokens)))


def _carry(
    going: Mapping[str, tuple[Training, int]],
    steps: Iterator[dict[str, Step]],
    again: Callable[[str, Training, int], None],
) -> None:
    """Log the steps of all; `again` is what follows where one is to be judged."""
    with between_steps() as check:
        for made in steps:
            for name, step in made.items():
                it, last = going[name]
                note(it, step, it.watch.seconds + step.seconds / len(made))
                if due(it, last):
                    again(name, it, last)
            check()


def _judged(it: Training) -> None:
    """Validated, and its state saved."""
    it.made.model.train()  # drops what was kept of the weights for evaluation
    judge(it)
    it.keep()


def _head(name: str, it: Training, last: int, first: int) -> HeadTrial:
    """A run as a trial of a bank of heads, in which its rows begin at `first`."""
    spec, lengths = it.job.spec, batches.lengths_of(it.train)
    settings = spec.train

    def rows(step: int) -> Iterator[list[np.ndarray]]:
        for one in batches.steps(
            lengths, batch=settings.batch, seed=spec.seed, group=settings.group_by_length, start=step
        ):
            yield [piece + first for piece in batches.cut(one, lengths, tokens=settings.micro_tokens)]

    return HeadTrial(
        name,
        it.made.model,
        rows,
        it.job.task.loss,
        _own(it),
        optim.schedule(settings, it.steps),
        last,
        step=it.watch.step,
        clip=settings.clip,
        seed=spec.seed,
    )


def _trial(name: str, it: Training, last: int) -> LoraTrial:
    spec = it.job.spec
    return LoraTrial(
        name,
        it.made.model,
        lambda step: stream(spec, it.job.task, it.train, start=step),
        it.job.task.loss,
        optim.optimizer(it.made.model, spec.train, it.made.lr),
        optim.schedule(spec.train, it.steps),
        last,
        step=it.watch.step,
        clip=spec.train.clip,
        seed=spec.seed,
    )


def _own(it: Training) -> Optimizer:
    assert it.optimizer is not None  # `company` looked
    return it.optimizer


def _hand_over(alone: Optimizer, joint: Optimizer) -> None:
    """Give the moments of each weight to the optimizer that sees neighbouring weights as one."""
    for weight, whole in _places(alone, joint):
        for key, value in alone.state.get(weight, {}).items():
            if value.shape != weight.shape:  # the count of steps
                joint.state[whole][key] = value.clone()
                continue
            moments = joint.state[whole].setdefault(key, torch.zeros_like(whole, requires_grad=False))
            _within(moments, weight, whole).copy_(value)


def _leave(it: Training, trial: LoraTrial) -> None:
    """Take the moments back, and give the weights memory of their own."""
    own = _own(it)
    places = list(_places(own, trial.optimizer))
    for weight, whole in places:
        state = trial.optimizer.state[whole]
        own.state[weight] = {
            key: (_within(value, weight, whole) if value.shape == whole.shape else value).clone(
                memory_format=torch.contiguous_format
            )
            for key, value in state.items()
        }
    for weight, whole in places:
        if weight is not whole:
            weight.data, weight.grad = weight.detach().clone(memory_format=torch.contiguous_format), None


def _places(alone: Optimizer, joint: Optimizer) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """(weight, parameter of the joint optimizer that holds it), group by group."""
    for own, joined in zip(alone.param_groups, joint.param_groups, strict=True):
        for weight in own["params"]:
            yield weight, next(whole for whole in joined["params"] if _holds(whole, weight))


def _holds(whole: nn.Parameter, weight: nn.Parameter) -> bool:
    first, at = whole.data_ptr(), weight.data_ptr()
    return first <= at < first + whole.numel() * whole.element_size()


def _within(values: Tensor, weight: nn.Parameter, whole: nn.Parameter) -> Tensor:
    """The part of `values`, laid out like `whole`, that belongs to a weight, in the weight's shape."""
    if weight is whole:
        return values
    start = (weight.data_ptr() - whole.data_ptr()) // whole.element_size()
    return values.as_strided(weight.shape, weight.stride(), start)
