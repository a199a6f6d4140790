"""NF4: the published code, both levels of quantisation by hand, and a product with its gradient."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from penjing.models.four_bit import FourBit, levels, packed, unpacked

# bitsandbytes' table (backends/utils.py), which the QLoRA paper prints in appendix E
PUBLISHED = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


def test_the_levels_are_the_published_ones() -> None:
    assert levels() == pytest.approx(PUBLISHED, abs=2e-7)


def test_every_weight_is_the_level_nearest_to_it_times_its_blocks_scale() -> None:
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(0)) * 0.02
    blocks = weight.flatten().view(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    book = torch.tensor(PUBLISHED)
    by_hand = book[(blocks[..., None] / scales[..., None] - book).abs().argmin(-1)]
    # scales, less their mean, as 8-bit floats of which the largest is 448
    apart = scales - scales.mean()
    unit = apart.abs().max() / 448
    coarse = (apart / unit).to(torch.float8_e4m3fn).float() * unit + scales.mean()
    found = unpacked(packed(weight), (24, 40), torch.float32)
    assert torch.allclose(found, (by_hand * coarse).view(24, 40), atol=1e-7)
    assert float((coarse / scales - 1).abs().max()) < 0.02


def test_a_level_times_a_scale_comes_back_whatever_the_shape() -> None:
    book = torch.tensor(PUBLISHED)
    weight = 0.3 * book[torch.arange(7 * 64 * 5) % 16].view(35, 64)
    for piece in (weight, weight[:3, :50].contiguous()):
        found = unpacked(packed(piece), tuple(piece.shape), torch.float32)
        assert torch.allclose(found, piece, atol=1e-6)


def test_a_weight_takes_little_more_than_four_bits_and_no_cast_reaches_it() -> None:
    layer = FourBit(nn.Linear(512, 512, bias=False))
    before = {name: tensor.clone() for name, tensor in layer.named_buffers()}
    assert 8 * sum(t.numel() * t.element_size() for t in before.values()) / 512**2 < 4.13
    layer.to(torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.named_buffers())


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_product_and_gradient_are_those_of_a_layer_with_the_rounded_weight(kind: str) -> None:
    torch.manual_seed(0)
    made = nn.Linear(48, 32) if kind == "linear" else Conv1D(32, 48)
    original = copy.deepcopy(made)
    layer = FourBit(made)
    x = torch.randn(5, 48).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weight = layer.weight(torch.float32)
    ours, theirs = layer(x), F.linear(y, weight, original.bias)
    assert torch.allclose(ours, theirs, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-5)  # type: ignore[arg-type]
    with torch.no_grad():
        assert float((ours - original(x)).norm() / ours.norm()) < 0.15
        assert torch.allclose(layer.plain()(x), ours, atol=1e-6)
