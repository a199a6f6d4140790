"""Several models that answer as one: their probabilities are averaged, counted as votes, or stacked.

An ensemble gives logits, as any model does: those of which the task makes the combined probabilities. So
whatever scores, serves or exports a model needs to know nothing of ensembles.

Legend: M members, S sequences, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.model import Model
from penjing.records import Batch

WAYS = ("mean", "vote", "stack")
TIE = 1e-3  # what the members' mean probability weighs beside a vote: enough to break ties


class Ensemble(nn.Module):
    """`ensemble(batch)` -> (S, C) logits of the combined answer. `mix` (M C -> C) is what `stack` learned."""

    def __init__(
        self, members: Sequence[Model], way: str, *, of: str = "classes", mix: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.members, self.head = nn.ModuleList(members), members[0].head
        self.way, self.of, self.mix = way, of, mix

    def forward(self, batch: Batch) -> Tensor:
        logits_MSC = torch.stack([member(batch).float() for member in self.members])
        return combined(logits_MSC, self.way, of=self.of, mix=self.mix)


def combined(logits_MSC: Tensor, way: str, *, of: str, mix: nn.Linear | None = None) -> Tensor:
    """(S, C) logits of the members' combined probabilities; `of` says what members give, as `Task.outputs`.

    mean: the average probability; of `numbers`, which are on one scale, their average. vote: the share of
    members that answer a class (of `marks`, that give it more than one half). stack: a linear layer over all
    members' log-probabilities (Wolpert 1992).
    """
    if of == "numbers":
        return logits_MSC.mean(0)
    if way == "stack":
        assert mix is not None
        stacked: Tensor = mix(features(logits_MSC))
        return stacked
    multi_label = of == "marks"
    p_MSC = torch.sigmoid(logits_MSC) if multi_label else logits_MSC.softmax(-1)
    p_SC = p_MSC.mean(0)
    if way == "vote":
        votes = p_MSC > 0.5 if multi_label else F.one_hot(p_MSC.argmax(-1), p_MSC.shape[-1])
        p_SC = (votes.float().mean(0) + TIE * p_SC) / (1 + TIE)
    p_SC = p_SC.clamp(1e-12, 1 - 1e-7)
    return torch.logit(p_SC) if multi_label else p_SC.log()


def features(logits_MSC: Tensor) -> Tensor:
    """(S, M C) what a stack sees: every member's log-probability of every class."""
    return logits_MSC.log_softmax(-1).clamp(min=-20).transpose(0, 1).flatten(1)


def share_weights(members: Sequence[Model]) -> int:
    """Let members hold equal weights (those of their common base) once in memory; returns the bytes saved."""
    saved = 0
    first = dict(members[0].named_parameters())
    for member in members[1:]:
        for name, parameter in member.named_parameters():
            same = first.get(name)
            if same is not None and same.dtype == parameter.dtype and torch.equal(same, parameter):
                saved += parameter.numel() * parameter.element_size()
                parameter.data = same.data
    return saved
