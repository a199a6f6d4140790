"""Weights become zero bit by bit while the others learn to do without (Zhu & Gupta 2017, arXiv 1710.01878;
movement pruning, Sanh et al. 2020, arXiv 2005.07683)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal

from torch import nn

from penjing.errors import SpecError
from penjing.models.masked import Masks
from penjing.records import Technique


def sparsify(
    *,
    share: float | None = None,
    by: Literal["magnitude", "movement", "zeros"] = "magnitude",
    start: float = 0.1,
    end: float = 0.7,
    renewals: int = 20,
    over: Literal["row", "layer"] = "layer",
) -> Technique:
    """Set a share of the weights of linear layers to zero, more and more of them, while training goes on.

    What is validated and saved has all its zeros at any time; before the end they are put in for that while.

    share: of each layer's weights that are zero in the end; a half, when not given. by: those go that are
    least (`magnitude`), or that move most towards zero (`movement`, better where few weights are left);
    `zeros`: those stay zero that are zero already, as after `wanda`. start, end: shares of the steps between
    which zeros grow, as a cube (s - s (1 - t)^3). renewals: how often in between. over: the share is of each
    `row` (output), or of each whole `layer`.
    """
    if by == "zeros" and share is not None:
        raise SpecError(
            f"`sparsify.share` is {share}; with `by: zeros` it would be ignored: the weights say which are "
            "zero. Leave it out."
        )
    share = 0.5 if share is None else share
    if not 0 <= share < 1:
        raise SpecError(
            f"`sparsify.share` is the share of weights that become zero, from 0 to below 1; it is {share}. "
            f"0.5 takes half."
        )
    if not 0 <= start < end <= 1:
        raise SpecError(
            f"`sparsify.start` and `end` are shares of the steps, 0 to 1, the first the smaller; they are "
            f"{start} and {end}. 0.1 and 0.7 are usual."
        )
    if renewals < 1:
        raise SpecError(f"`sparsify.renewals` counts masks, 1 or more; it is {renewals}. 20 is usual.")
    masks = Masks(by, over)
    due: dict[int, float] = {}  # step -> share of zeros from then on

    def plan(steps: int) -> None:
        due.clear()
        if by != "zeros" and share:
            due.update(schedule(share, steps, start=start, end=end, renewals=renewals))

    def edit_grads(model: nn.Module) -> None:
        if by == "zeros" and not masks.masks:
            masks.begin(model)
        if due or by == "zeros":
            masks.edit_grads(model)

    def after_update(model: nn.Module, step: int) -> None:
        passed = [at for at in due if state.step < at <= step]  # fp16 leaves out some updates
        if passed:
            masks.renew(model, due[max(passed)])
        elif masks.masks:
            masks.hold(model)
        state.step = step

    def weights(model: nn.Module) -> AbstractContextManager[None]:
        done = not due or state.step >= max(due)
        return contextlib.nullcontext() if done else masks.shown(model, share)

    state = _State(masks)
    return Technique(
        "sparsify", edit_grads=edit_grads, after_update=after_update, plan=plan, weights=weights, state=state
    )


class _State:
    """What an exact resume needs: masks, and the step they are of."""

    def __init__(self, masks: Masks) -> None:
        self.masks, self.step = masks, 0

    def state_dict(self) -> dict[str, object]:
        return {"step": self.step, **self.masks.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        step = state.get("step", 0)
        assert isinstance(step, int)
        self.step = step
        self.masks.load_state_dict(state)


def schedule(share: float, steps: int, *, start: float, end: float, renewals: int) -> dict[int, float]:
    """At which steps (from 1) masks are renewed, and the share of zeros from then on; the last has all."""
    first, last = start * steps, max(1.0, end * steps)
    found: dict[int, float] = {}
    for k in range(1, renewals + 1):
        at = first + (last - first) * k / renewals
        found[max(1, round(at))] = share * (1 - (1 - k / renewals) ** 3)
    return found
