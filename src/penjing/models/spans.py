"""Where an answer begins and ends, of scores of every token (Devlin et al. 2019, section 4.2 and 4.3).

Legend: S windows, T tokens, L tokens of the longest window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def padded(logits_T2: Tensor, lengths: Tensor, marks_S: Tensor) -> Tensor:
    """(S, 2, L) scores of begins and ends; -inf where none may be. marks: (S, 3) first token that may be one,
    the one after the last, and the place that stands for "no answer"."""
    size = lengths.to(logits_T2.device)
    owner = torch.repeat_interleave(torch.arange(len(size), device=size.device), size)
    place = torch.arange(len(owner), device=size.device) - (size.cumsum(0) - size)[owner]
    first, after, none = (marks_S[owner, i] for i in range(3))
    may = ((place >= first) & (place < after)) | (place == none)
    full = logits_T2.new_full((len(size), int(lengths.max()), 2), -torch.inf)
    full[owner, place] = logits_T2.masked_fill(~may[:, None], -torch.inf)
    return full.transpose(1, 2)


def losses(scores_S2L: Tensor, wanted_S2: Tensor) -> Tensor:
    """(S,) mean cross-entropy of begin and end."""
    each = F.cross_entropy(scores_S2L.flatten(0, 1), wanted_S2.flatten(), reduction="none")
    found: Tensor = each.unflatten(0, wanted_S2.shape).mean(1)
    return found


def best_spans(scores_S2L: Tensor, marks_S: Tensor, longest: int) -> Tensor:
    """(S, 6) of each window: score, begin, end of its best span of at most `longest` tokens, the score of "no
    answer", and how sure it is of each (the product of both probabilities). marks: as in `padded`."""
    none = marks_S[:, 2]
    at = none[:, None, None].expand(-1, 2, 1)
    nothing = scores_S2L.gather(2, at).sum((1, 2))
    inner = scores_S2L.scatter(2, at, -torch.inf)
    begins, ends = inner.unbind(1)
    ahead = F.pad(ends, (0, longest - 1), value=-torch.inf)
    tops, places = F.max_pool1d(ahead[:, None], longest, stride=1, return_indices=True)
    total = begins + tops[:, 0]
    score, begin = total.max(1)
    end = places[:, 0].gather(1, begin[:, None])[:, 0]
    norm = scores_S2L.logsumexp(2).sum(1)
    sure = torch.stack([score - norm, nothing - norm], 1).exp()
    columns = [score, begin.to(score), end.to(score), nothing]
    return torch.cat([torch.stack(columns, 1), sure], 1)
