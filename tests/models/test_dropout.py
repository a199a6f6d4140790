"""Quick dropout: the right share, the same mean, one mask a seed, and every family reached."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import FAMILIES
from penjing.methods.lora import lora
from penjing.models import packing
from penjing.models.dropout import Dropout, fast_dropout, hasten, set_dropout, start_from
from penjing.models.load import load

Tiny = Callable[..., Path]


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_the_share_dropped_is_p(p: float) -> None:
    n = 1_000_000
    dropped = float((fast_dropout(torch.ones(n), p) == 0).sum()) / n
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5 + 1 / 65536


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_the_mean_is_kept(p: float, dtype: torch.dtype) -> None:
    x = torch.ones(1_000_000, dtype=dtype)
    mean = float(fast_dropout(x, p).double().mean())
    noise = 5 * (p / (1 - p) / 1_000_000) ** 0.5
    assert abs(mean - 1) < noise + (
        0.004 if dtype == torch.bfloat16 else 1e-6
    )  # bf16 has 8 bits of 1 / (1 - p)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_a_step_starts_from_the_random_numbers_of_torchs_seed(seed: int) -> None:
    torch.manual_seed(seed)
    wanted = torch.rand(5)
    start_from(seed)
    assert torch.equal(torch.rand(5), wanted)


def test_the_same_seed_gives_the_same_mask() -> None:
    x = torch.randn(7, 13)
    torch.manual_seed(3)
    first, other = fast_dropout(x, 0.4), fast_dropout(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(first, fast_dropout(x, 0.4))
    assert not torch.equal(first, other)


def test_neighbours_are_dropped_independently() -> None:
    """One random number serves four elements: its parts must not know of each other."""
    dropped = (fast_dropout(torch.ones(400_000), 0.3) == 0).double().view(-1, 4)
    off = torch.corrcoef(dropped.T) - torch.eye(4, dtype=torch.float64)
    assert float(off.abs().max()) < 5 / 100_000**0.5


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 63])
def test_every_size_works(n: int) -> None:
    assert fast_dropout(torch.ones(n), 0.5).shape == (n,)


def test_nothing_dropped_is_the_input_bit_for_bit() -> None:
    x = torch.randn(50)
    assert torch.equal(fast_dropout(x, 0.0), x)


def test_everything_dropped_is_zero() -> None:
    assert not fast_dropout(torch.ones(50), 1.0).any()


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_gradient_is_the_mask_over_what_is_kept(p: float) -> None:
    x = torch.randn(1000, requires_grad=True)
    y = fast_dropout(x, p)
    y.backward(torch.ones(1000))
    kept = (y != 0).float()
    assert x.grad is not None
    assert float((x.grad - kept / (1 - p)).abs().max()) < 1e-4  # p is kept to 1 / 65536
    assert torch.equal(x.grad == 0, y == 0)


def test_views_that_do_not_lie_end_to_end_are_dropped_alike() -> None:
    x = torch.randn(6, 10, requires_grad=True)
    torch.manual_seed(0)
    turned = fast_dropout(x.t(), 0.5)
    torch.manual_seed(0)
    assert torch.equal(turned, fast_dropout(x.t().contiguous(), 0.5))


def test_a_module_drops_only_in_training() -> None:
    drop, x = Dropout(0.5), torch.ones(100)
    assert bool((drop.train()(x) == 0).any())
    assert torch.equal(drop.eval()(x), x)


def test_hasten_replaces_every_plain_dropout_and_keeps_its_rate() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.ModuleDict({"a": nn.Dropout(0.2)}))
    net[2]["b"] = nn.Dropout1d(0.4)  # another kind stays
    hasten(net)
    assert [(type(m), m.p) for m in net.modules() if hasattr(m, "p")] == [
        (Dropout, 0.3), (Dropout, 0.2), (nn.Dropout1d, 0.4)
    ]  # fmt: skip


def states(folder: Path, rate: float | None) -> tuple[Tensor, Tensor]:
    """Of one batch: in training mode with dropout set to `rate`, and in evaluation mode."""
    base = load(str(folder))
    if rate is not None:
        set_dropout(base.trunk, rate)
    hasten(base.trunk)
    ids = torch.arange(40, 70)
    with torch.no_grad():
        trained = packing.run(base.trunk.train(), base.way, ids, [10, 20])
        return trained, packing.run(base.trunk.eval(), base.way, ids, [10, 20])


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_set_to_nothing_reaches_every_place_of_the_family(family: str, tiny: Tiny) -> None:
    trained, evaluated = states(tiny(family), 0.0)
    assert torch.equal(trained, evaluated)


def test_the_bases_dropout_leaves_that_of_lora(tiny: Tiny) -> None:
    """`train.dropout` replaces the base's dropout; `lora.dropout` is another setting."""
    trunk = lora(rank=2, dropout=0.3).apply(load(str(tiny("bert"))).trunk)
    set_dropout(trunk, 0.0)
    own = [m.p for name, m in trunk.named_modules() if "lora_dropout" in name and hasattr(m, "p")]
    assert own
    assert set(own) == {0.3}


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_can_be_turned_on_in_every_family(family: str, tiny: Tiny) -> None:
    trained, evaluated = states(tiny(family), 0.2)
    assert not torch.allclose(trained, evaluated, atol=1e-3)


def test_a_rate_of_dropout_leaves_no_layer_out(tiny: Tiny) -> None:
    trunk = load(str(tiny("bart")), whole=True).trunk
    stacks: list[Any] = [trunk.encoder, trunk.decoder]
    set_dropout(trunk, 0.3)
    assert [stack.layerdrop for stack in stacks] == [0.0, 0.0]
    stacks[0].layerdrop = 0.2
    set_dropout(trunk, 0.3)
    assert stacks[0].layerdrop == 0.2
    set_dropout(trunk, 0.0)
    assert stacks[0].layerdrop == 0.0


def test_a_rate_that_a_config_has_as_a_whole_number_is_one(tiny: Tiny) -> None:
    trunk: Any = load(str(tiny("llama"))).trunk
    attention = trunk.layers[0].self_attn
    attention.attention_dropout = 0
    set_dropout(trunk, 0.3)
    assert attention.attention_dropout == 0.3
