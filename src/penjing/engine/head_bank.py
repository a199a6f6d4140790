"""Many heads trained at once on pooled states that were computed once (`method: top` without its trunk).

Every head has its own rows, rate, decay, schedule, clipping and random numbers; the products of all are one
bmm a layer. N heads together equal each alone.

Legend: N heads, B rows of the head that has most in this step, S rows of all, D width, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from penjing.data.batches import count_targets
from penjing.engine.bank import Trial
from penjing.engine.loop import clip_to, norm_of, not_finite, seed_of
from penjing.engine.optim import set_rates
from penjing.errors import NotSupported, TrainingFailed
from penjing.models.dropout import Stream, drop, drops
from penjing.models.heads import ClassHead
from penjing.records import Batch, Step

HeadTrial = Trial[list[np.ndarray]]


class HeadBank:
    """Heads of one shape over the same pooled states (n, D), with the targets (first dimension n) of a task.

    A trial's stream gives the rows of each micro-batch of update `step`, `step + 1`, …; of its model only
    the head is looked at. The loss, one for all, is a sum over rows, each times its weight; `weights` (n,)
    as in a Batch.
    """

    def __init__(
        self,
        trials: Sequence[HeadTrial],
        states_ND: Tensor,
        targets: np.ndarray,
        *,
        weights: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.failed: dict[str, TrainingFailed] = {}
        self._states, self._loss = states_ND.float(), trials[0].loss
        self._targets = torch.from_numpy(targets).to(states_ND.device)
        self._weights = None if weights is None else torch.from_numpy(weights)
        self._lengths = np.zeros(len(targets), np.int64) if lengths is None else lengths  # tokens, to count
        self._trials: dict[str, HeadTrial] = {}
        self._rows: dict[str, Iterator[list[np.ndarray]]] = {}
        self._random: dict[str, Stream] = {}
        for trial in trials:
            self.add(trial)

    def add(self, trial: HeadTrial) -> None:
        """Take a head in; it trains from its own step on.

        Raises:
            NotSupported: its name is taken, or it has another shape than the others.
        """
        if trial.name in self._trials:
            raise NotSupported(f"A head named `{trial.name}` is in the bank. Drop it first, or rename one.")
        for other in self._trials.values():
            ours, theirs = shape_of(trial.model.head), shape_of(other.model.head)
            if ours != theirs:
                raise NotSupported(
                    f"Heads that train together have one shape; `{other.name}` has {theirs}, "
                    f"`{trial.name}` {ours}. Give them the same task and pooling, or two banks."
                )
        self._trials[trial.name] = trial
        self._rows[trial.name] = trial.stream(trial.step)
        self._random[trial.name] = Stream(self._states.device)

    def drop(self, name: str) -> HeadTrial:
        """Take a head out, trained as far as it is."""
        return self._trials.pop(name)

    def steps(self) -> Iterator[dict[str, Step]]:
        """As `Bank.steps`."""
        while live := [t for t in self._trials.values() if t.step < t.steps]:
            yield self._update(live)

    def _update(self, live: list[HeadTrial]) -> dict[str, Step]:
        began = time.perf_counter()
        rates = [set_rates(t.optimizer, t.share(t.step)) for t in live]
        pieces = [next(self._rows[t.name]) for t in live]  # micro-batches, which draw their dropout in turn
        rows = [torch.from_numpy(np.concatenate(own)) for own in pieces]
        for trial in live:
            trial.optimizer.zero_grad(set_to_none=True)
            self._random[trial.name].restart(seed_of(trial.seed, trial.step))
        batches = [self._batch(own) for own in rows]
        logits = self._logits(live, rows, pieces)
        shares = torch.cat([b.weights / (b.n_targets or 1.0) for b in batches if b.weights is not None])
        shares.requires_grad_()
        labels = torch.cat([b.labels for b in batches if b.labels is not None])
        every = torch.cat(rows)
        whole = Batch(every[:0], torch.ones_like(every), labels, 1.0, tuple(every.tolist()), weights=shares)
        self._loss(_Given(logits), whole).mean.backward()
        if shares.grad is None:
            raise NotSupported(
                "Heads that train together need a loss that is a sum over rows, each times its weight; this "
                "one takes no weights. Train each head by itself."
            )
        # a sum is linear in its weights: the gradient of a row's weight is that row's loss
        means = (shares.detach() * shares.grad).split([len(own) for own in rows])
        found = {}
        for trial, lr, batch, mean in zip(live, rates, batches, means, strict=True):
            loss, step = float(mean.sum()), trial.step + 1
            trained = list(trial.model.head.parameters())
            if not batch.n_targets:  # as alone: without a gradient nothing moves or decays
                trial.optimizer.zero_grad(set_to_none=True)
            norm = norm_of(trained)
            if not (abs(loss) < float("inf") and norm < float("inf")):
                self.failed[trial.name] = TrainingFailed(not_finite(step, loss, norm, lr, [batch]))
                self.drop(trial.name)
                continue
            clip_to(trained, norm, trial.clip, trial.optimizer)
            trial.optimizer.step()
            trial.step = step
            took = time.perf_counter() - began
            n_rows, n_tokens = len(batch.rows), int(self._lengths[list(batch.rows)].sum())
            found[trial.name] = Step(step, loss, {}, lr, norm, batch.n_targets, n_tokens, n_rows, took)
        return found

    def _batch(self, rows: Tensor) -> Batch:
        """Labels and weights of one head's rows, without tokens."""
        labels = self._targets[rows.to(self._targets.device)]
        own = None if self._weights is None else self._weights[rows]
        n_targets = count_targets(len(rows), labels, own)
        weights = torch.ones(len(rows)) if own is None else own
        ones = torch.ones_like(rows)
        named = tuple(rows.tolist())
        return Batch(rows[:0], ones, labels, n_targets, named, weights=weights.to(labels.device))

    def _logits(self, live: list[HeadTrial], rows: list[Tensor], pieces: list[list[np.ndarray]]) -> Tensor:
        """(S, C) of all heads, each on its own rows."""
        counts = [len(own) for own in rows]
        inside = torch.arange(max(counts))[None, :] < torch.tensor(counts)[:, None]  # (N, B)
        places = inside.flatten().nonzero().flatten().to(self._states.device)
        x = self._states.new_zeros(inside.numel(), self._states.shape[1])
        x = x.index_copy(0, places, self._states[torch.cat(rows).to(self._states.device)])
        x = x.view(*inside.shape, -1)  # (N, B, D)
        heads = [trial.model.head for trial in live]
        if heads[0].dense is not None:
            x = torch.tanh(_linear(x, [head.dense for head in heads if head.dense is not None]))
        factors = x.new_ones(inside.numel(), x.shape[2])
        for i, (trial, own) in enumerate(zip(live, pieces, strict=True)):
            p = trial.model.head.dropout
            if drops(p):
                drawn = [self._random[trial.name].factor((len(one), x.shape[2]), p, x.dtype) for one in own]
                factors[i * inside.shape[1] :][: counts[i]] = torch.cat(drawn)
        x = drop(x, factors.view(x.shape))
        logits = _linear(x, [head.out for head in heads])
        return logits.flatten(0, 1).index_select(0, places)


def _linear(x: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """(N, B, in) -> (N, B, out), each by its own layer."""
    weight = torch.stack([layer.weight for layer in layers])
    bias = torch.stack([layer.bias for layer in layers])
    return torch.baddbmm(bias[:, None, :], x, weight.transpose(1, 2))


def shape_of(head: ClassHead) -> str:
    """What heads that train together have in common."""
    out = f"{head.out.in_features} to {head.out.out_features}"
    return out if head.dense is None else f"{head.dense.in_features} by tanh {out}"


class _Given(nn.Module):
    """A model whose output is there already."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, batch: Batch) -> Tensor:
        return self._logits
