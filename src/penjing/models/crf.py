"""A linear-chain conditional random field over tags (Lafferty et al. 2001), in the log domain, in fp32.

The score of a path is the sum of its emissions and of the transitions between neighbours. There are no
scores for the first and last tag, so that a piece of a long row is scored as what it is, a piece; what may
begin and end a row is a rule of decoding.

Legend: S chains, L longest, C tags. Chains are padded at their end; what lies there is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NEVER = -1e9  # a score that no path survives; finite, so that no sum of such scores is undefined


def log_partition(emissions_SLC: Tensor, lengths: Tensor, transitions_CC: Tensor) -> Tensor:
    """(S,) log of the sum over all paths of exp(score): the forward algorithm."""
    alpha_SC = emissions_SLC[:, 0]
    for step in range(1, emissions_SLC.shape[1]):
        reached = torch.logsumexp(alpha_SC[:, :, None] + transitions_CC, dim=1) + emissions_SLC[:, step]
        alpha_SC = torch.where((lengths > step)[:, None], reached, alpha_SC)
    return torch.logsumexp(alpha_SC, dim=1)


def path_score(emissions_SLC: Tensor, tags_SL: Tensor, lengths: Tensor, transitions_CC: Tensor) -> Tensor:
    """(S,) score of the paths given."""
    inside = torch.arange(tags_SL.shape[1], device=lengths.device) < lengths[:, None]
    own = emissions_SLC.gather(2, tags_SL[:, :, None]).squeeze(2)
    steps = transitions_CC[tags_SL[:, :-1], tags_SL[:, 1:]]
    return (own * inside).sum(1) + (steps * inside[:, 1:]).sum(1)


def negative_log_likelihood(
    emissions_SLC: Tensor, tags_SL: Tensor, lengths: Tensor, transitions_CC: Tensor
) -> Tensor:
    """(S,) -log p(path) of each chain."""
    whole = log_partition(emissions_SLC, lengths, transitions_CC)
    return whole - path_score(emissions_SLC, tags_SL, lengths, transitions_CC)


def best_paths(
    emissions_SLC: Tensor,
    lengths: Tensor,
    transitions_CC: Tensor,
    *,
    begin_C: Tensor | None = None,
    follow_CC: Tensor | None = None,
    end_C: Tensor | None = None,
) -> Tensor:
    """(S, L) the path with the highest score of each chain (Viterbi 1967) among those that the rules let
    pass: which tags may begin, follow (row before column) and end, bool."""
    n_chains, longest, _ = emissions_SLC.shape
    scores_CC = transitions_CC if follow_CC is None else transitions_CC.masked_fill(~follow_CC, NEVER)
    score_SC = emissions_SLC[:, 0] if begin_C is None else emissions_SLC[:, 0].masked_fill(~begin_C, NEVER)
    came_from = []
    stay = torch.arange(scores_CC.shape[0], device=score_SC.device)
    for step in range(1, longest):
        best, origin = (score_SC[:, :, None] + scores_CC).max(dim=1)
        going_on = (lengths > step)[:, None]
        came_from.append(torch.where(going_on, origin, stay))
        score_SC = torch.where(going_on, best + emissions_SLC[:, step], score_SC)
    if end_C is not None:
        score_SC = score_SC.masked_fill(~end_C, NEVER)
    paths = torch.empty(n_chains, longest, dtype=torch.int64, device=score_SC.device)
    last = score_SC.argmax(1)
    for step in range(longest - 1, -1, -1):
        paths[:, step] = last
        if step:
            last = came_from[step - 1].gather(1, last[:, None]).squeeze(1)
    return paths


def marginals(emissions_SLC: Tensor, lengths: Tensor, transitions_CC: Tensor) -> Tensor:
    """(S, L, C) probability of each tag at each place, over all paths: the gradient of the log partition."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = emissions_SLC.detach().clone().requires_grad_()
        whole = log_partition(leaf, lengths.clone(), transitions_CC.detach().clone()).sum()
        return torch.autograd.grad(whole, leaf)[0]


def chains(values: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """Values of chains end to end, (N, …), as (S, L, …) padded with zeros, and their lengths (S,)."""
    parts = [part for part in values.split(counts) if len(part)]
    lengths = torch.tensor([len(part) for part in parts], device=values.device)
    return pad_sequence(parts, batch_first=True), lengths
