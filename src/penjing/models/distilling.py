"""How far a student is from its teacher: in outputs, hidden states, and relations between tokens.

Legend: N outputs (of rows, or of sites in them), C classes or numbers, S sequences, T tokens, D width, A
relation heads, L longest of a group, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.models.layout import Group, layout_of, spread
from penjing.models.packing import pattern_of
from penjing.records import Batch

PAIRS = ("qk", "qq", "kk", "vv")


def outputs_apart(ours_NC: Tensor, theirs_NC: Tensor, kind: str, temperature: float) -> Tensor:
    """(N,) distance of outputs: T^2 KL(theirs || ours) of softened `classes` (Hinton et al. 2015, arXiv
    1503.02531), its mean over `marks` that do not exclude each other, or the mean square of `numbers`.
    """
    if kind == "numbers":
        return F.mse_loss(ours_NC, theirs_NC, reduction="none").mean(1)
    ours, theirs = ours_NC / temperature, theirs_NC / temperature
    if kind == "classes":
        log_ours, log_theirs = ours.log_softmax(1), theirs.log_softmax(1)
        return temperature**2 * (log_theirs.exp() * (log_theirs - log_ours)).sum(1)
    yes = torch.sigmoid(theirs) * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    no = torch.sigmoid(-theirs) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return temperature**2 * (yes + no).mean(1)


def states_apart(ours_TD: Tensor, theirs_TD: Tensor, how: str) -> Tensor:
    """(T,) distance of states: 1 - `cosine` (Sanh et al. 2019), or the mean of `squares` (TinyBERT, Jiao et
    al. 2019, arXiv 1909.10351, eq. 8)."""
    if how == "cosine":
        return 1 - F.cosine_similarity(ours_TD, theirs_TD, dim=1)
    return F.mse_loss(ours_TD, theirs_TD, reduction="none").mean(1)


def relations_apart(
    ours: tuple[Tensor, Tensor],
    theirs: tuple[Tensor, Tensor],
    lengths: Sequence[int],
    heads: int,
    *,
    causal: bool = False,
) -> Tensor:
    """(T,) mean over heads of KL(theirs || ours) between softmax(X Y' / sqrt(width of a head)), the relation
    of each token to all of its sequence (MiniLM, Wang et al. 2020, arXiv 2002.10957, eqs. 5 to 9; relation
    heads: MiniLMv2, arXiv 2012.15828).

    ours, theirs: X and Y, (T, width) each, whose widths may differ; they are cut into `heads` anew.
    """
    found = []
    for group in layout_of(lengths, ours[0].device).groups:
        seen = _seen(group, causal, ours[0].device)
        log_ours, log_theirs = (_related(x, y, group, heads, seen) for x, y in (ours, theirs))
        apart = log_theirs.exp() * (log_theirs - log_ours)
        flat = apart.masked_fill(~seen, 0.0).sum(-1).mean(1).flatten()  # (n * L,)
        found.append(flat if group.back is None else flat.index_select(0, group.back))
    return torch.cat(found)


def _seen(group: Group, causal: bool, device: torch.device) -> Tensor:
    """(n or 1, 1, L or 1, L) True where a query sees a key."""
    seen = torch.ones(1, 1, 1, group.longest, dtype=torch.bool, device=device)
    if group.visible is not None:
        seen = group.visible
    pattern = pattern_of(group.longest, causal, None, device)
    return seen if pattern is None else seen & pattern


def _related(x: Tensor, y: Tensor, group: Group, heads: int, seen: Tensor) -> Tensor:
    """(n, A, L, L) log-probabilities of a group's relations, queries before keys."""
    own = (part[group.first : group.last].unflatten(1, (heads, -1)) for part in (x, y))
    x_nALd, y_nALd = (spread(part.contiguous(), group) for part in own)
    scores = x_nALd @ y_nALd.transpose(2, 3) / x_nALd.shape[-1] ** 0.5
    hidden: Tensor = scores.masked_fill(~seen, torch.finfo(scores.dtype).min / 2)
    return hidden.log_softmax(-1)


def common_heads(ours: int, theirs: int, width: int) -> int:
    """Relation heads where none are asked for: the teacher's, if the student's width can be cut so."""
    return theirs if width % theirs == 0 else gcd(ours, theirs)


def teachers_layers(n_student: int, n_teacher: int, how: str | Sequence[int]) -> dict[int, int]:
    """Layer of the student: layer of the teacher that it learns from, both from 1.

    `even`: the last from the last, and the others evenly (TinyBERT's uniform map); `last`: that alone; a
    list: one a layer of the student, 0 for none.
    """
    if how == "last":
        return {n_student: n_teacher}
    if isinstance(how, str):
        return {i: max(1, round(i * n_teacher / n_student)) for i in range(1, n_student + 1)}
    return {i: int(n) for i, n in enumerate(how, 1) if n}


def shares_of(batch: Batch) -> Tensor:
    """(R,) what each row of a batch counts in its mean loss, before division by `n_targets`: its weight, its
    targets where each token has one, else the same for all."""
    labels, n_rows = batch.labels, len(batch.rows)
    if batch.weights is not None and len(batch.weights) == n_rows:
        return batch.weights.float()
    if labels is not None and labels.ndim == 1 and not labels.is_floating_point() and len(labels) != n_rows:
        return torch.stack([(own != -100).sum() for own in labels.split(tokens_of(batch))]).float()
    return torch.full((n_rows,), batch.n_targets / n_rows, device=batch.ids.device)


def tokens_of(batch: Batch) -> list[int]:
    """Tokens of each row of a batch."""
    ends = batch.ends()
    return [int(batch.lengths[a:b].sum()) for a, b in pairwise(ends)]


def mean_of_rows(apart_R: Tensor, batch: Batch) -> Tensor:
    """The mean over a batch's rows by their shares, so that micro-batches add up to the whole step."""
    return (apart_R * shares_of(batch)).sum() / max(batch.n_targets, 1e-12)


def mean_of_tokens(apart_T: Tensor, batch: Batch) -> Tensor:
    """The same of each row's mean over its tokens."""
    sizes = torch.tensor(tokens_of(batch), device=apart_T.device)
    weights = torch.repeat_interleave(shares_of(batch) / sizes, sizes)
    return (apart_T * weights).sum() / max(batch.n_targets, 1e-12)
