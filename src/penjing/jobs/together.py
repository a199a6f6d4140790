"""Runs of LoRA over one base, carried at once by the bank; at a validation each is an ordinary run again.

The state a run saves is the one it would save alone, so it may be carried alone and together in turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penjing.engine import optim
from penjing.engine.bank import BY_ELEMENT, Bank, Trial
from penjing.errors import TrainingFailed
from penjing.jobs.prepare import stream
from penjing.jobs.stopping import between_steps
from penjing.jobs.training import Training, due, judge, note
from penjing.models.adapters import why_alone


def fits(it: Training) -> bool:
    """Whether a run can be carried with others: plain LoRA down to the lowest layer (else its frozen layers
    come from the trunk cache), no techniques, an optimizer by element.
    """
    plain = not (it.made.techniques or it.scale or it.job.task.fit) and isinstance(it.optimizer, BY_ELEMENT)
    return plain and it.made.model.frozen is None and not why_alone(it.made.model.trunk)


def advance_together(untils: Mapping[str, tuple[Training, int]]) -> dict[str, TrainingFailed]:
    """Carry runs that fit, over one base, each up to its step; returns those that failed on the way, by name.

    Raises:
        NotSupported: they differ in the base or its dropout rates.
        TrainingFailed: memory ran out with a single run's batch.
    """
    going = {n: (it, last) for n, (it, last) in untils.items() if it.watch.step < last and not it.over}
    if not going:
        return {}
    trials = {name: _trial(name, it, last) for name, (it, last) in going.items()}
    bank = Bank([*trials.values()])
    for name, trial in trials.items():
        _hand_over(_own(going[name][0]), trial.optimizer)
    with between_steps() as check:
        for steps in bank.steps():
            for name, step in steps.items():
                it, last = going[name]
                note(it, step, it.watch.seconds + step.seconds / len(steps))
                if due(it, last):
                    _leave(it, bank.drop(name))
                    judge(it)
                    it.keep()
                    if it.watch.step < last and not it.over:
                        trials[name] = _trial(name, it, last)
                        bank.add(trials[name])
                        _hand_over(_own(it), trials[name].optimizer)
            check()
    return bank.failed


def _trial(name: str, it: Training, last: int) -> Trial:
    spec = it.job.spec
    return Trial(
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
    assert it.optimizer is not None  # `fits` looked
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


def _leave(it: Training, trial: Trial) -> None:
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
    it.made.model.train()  # drops what was kept of the weights for evaluation


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
