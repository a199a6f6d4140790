"""The only training loop: a generator that yields a Step after each update. What to do with Steps is the
caller's.

Techniques fill five places (records.Technique). Every step's random numbers are a function of (seed, step),
so a run resumes exactly from a step's number and the saved tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from penjing.data.batches import halves
from penjing.engine.optim import decay_unused_rows, set_rates
from penjing.engine.ranks import ALONE, Ranks
from penjing.engine.scaling import LossScale
from penjing.errors import SpecError, TrainingFailed
from penjing.models.dropout import start_from
from penjing.models.embedding import tables_in_use
from penjing.records import Batch, Loss, LossFunction, Step, Technique


def train_steps(
    model: nn.Module,
    stream: Iterator[list[Batch]],
    loss: LossFunction,
    optimizer: Optimizer,
    share: Callable[[int], float],
    *,
    steps: int,
    start: int = 0,
    clip: float | None = 1.0,
    seed: int = 0,
    techniques: Sequence[Technique] = (),
    scale: LossScale | None = None,
    ranks: Ranks = ALONE,
    joint: bool = False,
) -> Iterator[Step]:
    """Train from update `start` to `steps`; each item of `stream` is the micro-batches of one update.

    The loss is averaged over the targets of the whole update, so micro-batches are a memory knob and nothing
    else. `scale` is for fp16: a step whose gradients overflowed changes nothing but the scale, and says so.
    `ranks`: the processes that train this model together; each gets the same stream and takes its share of
    every step, and all yield the same Steps. `joint`: the loss compares the rows of a step with each other,
    so a micro-batch is never cut.

    Raises:
        TrainingFailed: the loss or a gradient is not finite, or memory ran out with what cannot be cut.
        SpecError: two techniques want to make the gradients.
    """
    backward = backward_of(techniques)
    for technique in techniques:
        if technique.stream:
            stream = technique.stream(stream)
    whole = with_terms(loss, techniques)
    editors = [t.edit_grads for t in techniques if t.edit_grads]
    followers = [t.after_update for t in techniques if t.after_update]
    trained = [p for p in model.parameters() if p.requires_grad]
    tables = tuple(tables_in_use(model).values())
    room = _Room(joint)
    for number in range(start, steps):
        began = time.perf_counter()
        batches = next(stream)
        total = sum(b.n_targets for b in batches)
        own, idle = ranks.mine(batches)
        lr = set_rates(optimizer, share(number))
        model.train()
        notes: list[str] = []
        factor = scale.value if scale else 1.0
        while True:
            start_from(ranks.seed(seed_of(seed, number)))
            optimizer.zero_grad(set_to_none=True)
            try:
                own = room.fit(own)
                mean, parts = _accumulate(model, own, idle, total, whole, backward, factor)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if ranks.sharded:  # the others wait in this very pass
                    raise TrainingFailed(
                        no_room("a micro-batch", max(b.n_tokens for b in own + idle), error)
                    ) from error
                notes.append(room.halve(own, error))
        mean, parts, notes = ranks.put_together(mean, parts, notes, trained)
        norm = norm_of(trained) / factor
        skipped = scale.judge(norm) if scale and abs(mean) < float("inf") else ""
        if skipped:
            notes.append(skipped)
        else:
            if editors or followers:  # they want gradients as they are
                _divide(trained, factor)
                factor = 1.0
            for edit in editors:
                edit(model)
            norm = norm_of(trained) if editors else norm
            if not (abs(mean) < float("inf") and norm < float("inf")):
                raise TrainingFailed(not_finite(number + 1, mean, norm, lr, batches))
            clip_to(trained, norm, clip, optimizer, factor)
            optimizer.step()
            decay_unused_rows(tables, optimizer)
            for follow in followers:
                follow(model, number + 1)
        yield Step(
            step=number + 1,
            loss=mean,
            parts=parts,
            lr=lr,
            grad_norm=norm,
            n_targets=total,
            n_tokens=sum(b.n_tokens for b in batches),
            n_rows=sum(len(b.rows) for b in batches),
            seconds=time.perf_counter() - began,
            notes=tuple(notes),
        )


def _accumulate(
    model: nn.Module,
    batches: list[Batch],
    idle: list[Batch],
    total: float,
    loss: LossFunction,
    backward: Callable[..., Loss],
    factor: float,
) -> tuple[float, dict[str, float]]:
    """Make gradients of `factor` times the mean loss over the targets of a step, of which it has `total`;
    returns what these batches add to the mean and its parts. `idle` batches are run and add nothing.
    """
    device = next(p for p in model.parameters() if p.requires_grad).device
    mean, parts = 0.0, dict[str, float]()
    for batch in (b for b in batches if b.n_targets):
        share = batch.n_targets / total
        found = backward(model, batch.to(device), lambda b: loss(model, b), share * factor)
        mean += share * float(found.mean.detach())
        for name, value in found.parts.items():
            parts[name] = parts.get(name, 0.0) + share * value
    for batch in idle:
        backward(model, batch.to(device), lambda b: loss(model, b), 0.0)
    return mean, parts


def _plain(model: nn.Module, batch: Batch, loss: Callable[[Batch], Loss], weight: float) -> Loss:
    found = loss(batch)
    (found.mean * weight).backward()
    return found


def with_terms(loss: LossFunction, techniques: Sequence[Technique]) -> LossFunction:
    """A loss with what techniques make of it."""
    terms = [t.loss for t in techniques if t.loss]

    def whole(model: nn.Module, batch: Batch) -> Loss:
        found = loss(model, batch)
        for term in terms:
            found = term(model, batch, found)
        return found

    return whole


def backward_of(techniques: Sequence[Technique]) -> Callable[..., Loss]:
    """How gradients are made: `(model, batch, loss of a batch, weight) -> Loss`.

    Raises:
        SpecError: two techniques want to make them.
    """
    makers = [(t.name, t.backward) for t in techniques if t.backward]
    if len(makers) > 1:
        names = " and ".join(f"`{name}`" for name, _ in makers)
        raise SpecError(
            f"{names} both decide how gradients are made; a run can have one such technique. Drop one."
        )
    return makers[0][1] if makers else _plain


def seed_of(seed: int, step: int) -> int:
    """One generator seed a (seed, step): splitmix64, so that neighbours have nothing in common."""
    z = (seed * 0x9E3779B97F4A7C15 + step + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def norm_of(parameters: list[nn.Parameter]) -> float:
    """The joint norm of all gradients, over all processes where each has a share of them."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _divide(parameters: list[nn.Parameter], factor: float) -> None:
    grads = [p.grad for p in parameters if p.grad is not None]
    if factor != 1 and grads:
        torch._foreach_div_(grads, factor)


def clip_to(
    parameters: list[nn.Parameter],
    norm: float,
    clip: float | None,
    optimizer: Optimizer,
    factor: float = 1.0,
) -> None:
    """Divide gradients by `factor`, and clip what they are then, of joint norm `norm`.

    A fused optimizer divides by `grad_scale` while it reads the gradients anyway: that saves a pass over
    them.
    """
    if clip is not None and norm > clip:
        factor *= norm / clip
    scaling: Any = optimizer
    scaling.grad_scale = None
    if factor != 1 and _divides(optimizer):
        scaling.grad_scale = torch.tensor(factor, device=parameters[0].device)
    else:
        _divide(parameters, factor)


def _divides(optimizer: Optimizer) -> bool:
    sharded = isinstance(optimizer.param_groups[0]["params"][0], DTensor)  # takes no plain scale
    return bool(
        optimizer.defaults.get("fused")
        and getattr(optimizer, "_step_supports_amp_scaling", False)
        and not sharded
    )


class _Room:
    """How many tokens fit at once, learned from running out of memory; `joint` as in `train_steps`."""

    def __init__(self, joint: bool) -> None:
        self.tokens: int | None = None
        self.joint = joint

    def fit(self, batches: list[Batch]) -> list[Batch]:
        if self.tokens is None:
            return batches
        fitting: list[Batch] = []
        waiting = list(reversed(batches))
        while waiting:
            batch = waiting.pop()
            parts = halves(batch) if batch.n_tokens > self.tokens else None
            if parts is None:
                fitting.append(batch)
            else:
                waiting.extend(reversed(parts))
        return fitting

    def halve(self, batches: list[Batch], error: BaseException) -> str:
        largest = max(batches, key=lambda b: b.n_tokens)
        if self.joint or len(largest.rows) < 2:
            on = "a single row" if len(largest.rows) < 2 else "rows that are compared with each other,"
            raise TrainingFailed(no_room(on, largest.n_tokens, error)) from error
        self.tokens = max(1, largest.n_tokens // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return (
            f"memory ran out with {largest.n_tokens} tokens at once; going on with at most {self.tokens} "
            f"(`train.micro_tokens: {self.tokens}` avoids the retry; results are the same)"
        )


def no_room(on: str, n_tokens: int, error: BaseException) -> str:
    """What to say where memory ran out and the loop cannot help itself."""
    smaller = {"a single row": "", "a micro-batch": " or `train.micro_tokens`"}.get(on, " or `train.batch`")
    return (
        f"Memory ran out on {on} of {n_tokens} tokens ({str(error)[:120] or type(error).__name__}). "
        f"Set `train.checkpointing: true`, a smaller `data.max_length`{smaller}, or `method: lora`."
    )


def out_of_memory(error: BaseException) -> bool:
    """True for the several ways torch and Python say that memory ran out."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )


def not_finite(step: int, loss: float, norm: float, lr: float, batches: list[Batch]) -> str:
    """What to say of a loss or a gradient that is not finite."""
    rows = sorted(r for b in batches for r in b.rows)[:5]
    return (
        f"The loss at step {step} is {loss} and its gradient norm {norm}; finite numbers were wanted. "
        f"The rate was {lr:.2g}, the rows were {', '.join(map(str, rows))}, …. Nothing was updated. "
        f"Lower `train.lr` (a third of it is a good try), set `precision: fp32`, or look at those rows."
    )
