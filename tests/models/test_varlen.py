"""The variable-length kernel: what it is given, and that it is used only where it was found right.

The kernel itself needs CUDA (tests/gpu); here a stand-in does what torch's documentation says of it.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.models import packing, varlen

LENGTHS = (5, 9, 3, 12)


def kernel(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, ends_k: Tensor, most: int, most_k: int, **more: Any
) -> Tensor:
    """torch's `varlen_attn`, sequence by sequence: keys from i - left to i + right, -1 for all."""
    assert ends.dtype == torch.int32
    assert torch.equal(ends, ends_k)
    assert most == most_k == int(ends.diff().max())
    assert more["enable_gqa"] == (q.shape[1] != k.shape[1])
    left, right = more["window_size"]
    outs = []
    for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        n = last - first
        one, keys, values = (x[first:last].transpose(0, 1) for x in (q, k, v))
        gap = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        seen = ((gap <= left) | (left < 0)) & ((-gap <= right) | (right < 0))
        outs.append(
            nn.functional.scaled_dot_product_attention(
                one, keys, values, attn_mask=seen, scale=more["scale"], enable_gqa=True
            ).transpose(0, 1)
        )
    return torch.cat(outs)


def inputs(key_heads: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(1, heads, sum(LENGTHS), 8) for heads in (4, key_heads, key_heads))


@pytest.mark.parametrize("window", [None, 4, 40])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_packed_attention_by_the_kernel_is_that_by_groups(
    key_heads: int, causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attend() -> Tensor:
        layout = packing.layout_of(LENGTHS)
        return packing.attend(nn.Module(), q, k, v, None, None, 0.0, layout, window, causal)[0]

    q, k, v = inputs(key_heads)
    wanted = attend()
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(varlen, "fits", lambda query, dropout: True)
    assert torch.allclose(attend(), wanted, atol=1e-5)


@pytest.mark.parametrize("fault", [None, "wrong", "missing", "unknown argument"])
def test_a_kernel_is_used_only_where_it_is_right(fault: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> Tensor:
        if fault == "missing":
            raise RuntimeError("no kernel image is available")
        if fault == "unknown argument":
            raise TypeError("varlen_attn() got an unexpected keyword argument 'window_size'")
        out = kernel(*args, **more)
        return 1.1 * out if fault == "wrong" else out

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", broken)
    varlen._works.cache_clear()
    assert varlen._works(torch.device("cpu"), torch.float32) is (fault is None)
    varlen._works.cache_clear()


def test_on_a_cpu_or_with_dropout_the_kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "_works", lambda device, dtype: pytest.fail("was asked"))
    assert not varlen.fits(torch.zeros(1, 4, 9, 8, dtype=torch.bfloat16), 0.0)
    assert not varlen.fits(torch.zeros(1, 4, 9, 8, dtype=torch.bfloat16, device="meta"), 0.1)
