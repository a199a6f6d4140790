"""Attention with dropout against softmax written out with the same factors: outputs and gradients."""

import pytest
import torch
from torch import Tensor, nn

from penjing.models import packing
from penjing.models.attention import DroppedAttention, places
from penjing.models.dropout import dropout_factor

CASES = {
    "one": ([5], False, None),
    "equal": ([4, 4, 4], False, None),
    "unequal": ([10, 9, 10, 8], False, None),
    "ones": ([1, 1], False, None),
    "causal": ([10, 9, 8], True, None),
    "window": ([12, 11, 10], False, 3),
    "causal window": ([12, 11], True, 4),
    "groups": ([30, 29, 9, 8, 2, 1, 1, 20], False, None),
}


def written_out(
    qkv: list[Tensor], lengths: list[int], p: float, causal: bool, window: int | None, seed: int
) -> Tensor:
    """(T, H, d): each sequence and head by itself; factors drawn as attend draws them, group by group."""
    torch.manual_seed(seed)
    q, k, v = (x[0] for x in qkv)  # (H, T, d)
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
    heads, out, at = q.shape[0], [], 0
    for group in packing.layout_of(lengths).groups:
        longest = group.longest
        factor = dropout_factor((group.n * heads, longest, longest), p, q.dtype).view(
            group.n, heads, longest, longest
        )
        for i, n in enumerate(group.lengths):
            here = slice(at, at + n)
            at += n
            scores = q[:, here] @ k[:, here].transpose(1, 2) / q.shape[2] ** 0.5  # (H, queries, keys)
            gap = torch.arange(n)[:, None] - torch.arange(n)[None, :]
            hidden = (gap < 0) if causal else torch.zeros_like(gap, dtype=torch.bool)
            if window:
                hidden = hidden | (gap.abs() >= window)
            weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            weights = weights * factor[i, :, :n, :n].transpose(1, 2)
            out.append((weights @ v[:, here]).transpose(0, 1))
    return torch.cat(out)


def inputs(lengths: list[int], key_heads: int = 4) -> list[Tensor]:
    return [torch.randn(1, h, sum(lengths), 8, requires_grad=True) for h in (4, key_heads, key_heads)]


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_softmax_written_out(case: str, p: float, key_heads: int) -> None:
    lengths, causal, window = CASES[case]
    ours, theirs = inputs(lengths, key_heads), []
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    torch.manual_seed(11)
    found, _ = packing.attend(
        nn.Module(),
        *ours,
        None,
        dropout=p,
        layout=packing.layout_of(lengths),
        is_causal=causal,
        sliding_window=window,
    )
    wanted = written_out(theirs, lengths, p, causal, window, seed=11)
    pull = torch.randn_like(wanted)
    assert torch.allclose(found[0], wanted, atol=1e-5)
    (found[0] * pull).sum().backward()
    (wanted * pull).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_in_bf16_it_follows_fp32() -> None:
    lengths = [10, 9, 10]
    exact = [x.detach().bfloat16().float().requires_grad_() for x in inputs(lengths)]
    quick = [x.detach().bfloat16().requires_grad_() for x in exact]
    outs = []
    for qkv in (exact, quick):
        torch.manual_seed(2)
        out, _ = packing.attend(nn.Module(), *qkv, None, dropout=0.2, layout=packing.layout_of(lengths))
        (out.float() ** 2).sum().backward()
        outs.append(out.float())
    assert torch.cosine_similarity(outs[0].flatten(), outs[1].flatten(), dim=0) > 0.999
    for one, other in zip(exact, quick, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.cosine_similarity(one.grad.flatten(), other.grad.float().flatten(), dim=0) > 0.995


def test_a_query_that_sees_nothing_harms_no_other_in_fp16() -> None:
    rows = [torch.randn(4, 8).half().requires_grad_() for _ in range(3)]
    hidden = torch.tensor([[False, True], [False, True]])  # keys first: the second query sees none
    out = DroppedAttention.apply(*rows, (2, 2), 2, 40.0, 0.3, hidden, torch.ones(4, 2, 2).half())
    out[::2].sum().backward()
    assert all(bool(x.isfinite().all()) for x in (out, *(row.grad for row in rows)))


def test_places_lead_there_and_back() -> None:
    lengths, heads = (3, 5, 4), 2
    into, back, empty = places(lengths, heads)
    rows = torch.arange(sum(lengths) * heads)
    assert torch.equal(rows[into][back], rows)
    assert sorted([*back.tolist(), *empty.tolist()]) == list(range(3 * heads * 5))


def test_a_group_without_dropout_in_its_way_needs_no_random_numbers() -> None:
    lengths = [5, 4]
    q, k, v = inputs(lengths)
    before = torch.get_rng_state()
    packing.attend(nn.Module(), q, k, v, None, dropout=0.0, layout=packing.layout_of(lengths))
    assert torch.equal(before, torch.get_rng_state())


def test_the_inputs_are_left_as_they_are() -> None:
    rows = [torch.randn(9, 8) for _ in range(3)]
    before = [x.clone() for x in rows]
    DroppedAttention.apply(*rows, (5, 4), 2, 0.5, 0.3, None)
    assert all(torch.equal(a, b) for a, b in zip(rows, before, strict=True))
