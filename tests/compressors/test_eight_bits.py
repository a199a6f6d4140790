"""Static int8 and SmoothQuant: ranges are those seen, factors change no function, outliers do less harm."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import told
from compressed import answers, held_of, rehearsal_of, shrink
from conftest import tickets
from penjing.compressors.calibrating import Ranges, batches_of, gathered, plain_linears
from penjing.compressors.eight_bits import span_of
from penjing.compressors.folding import fold, norms_of
from penjing.compressors.smoothquant import smoothing, smoothquant
from penjing.compressors.static_int8 import static_int8
from penjing.errors import DataError, SpecError
from penjing.models.calibrated_int8 import CalibratedInt8, through
from penjing.models.slim import weight_of

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(24)]


def ranges_of(x: torch.Tensor) -> Ranges:
    found = Ranges.empty(x.shape[1], x.device)
    found.add(x)
    return found


def test_spans_are_those_of_what_entered(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    batches, names = batches_of(rehearsal_of(held, TEXTS)), plain_linears(held)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for name in names:
        layer = held.model.trunk.get_submodule(name)
        layer.register_forward_pre_hook(lambda module, given, name=name: seen[name].append(given[0]))
    found = gathered(held.model, batches, names, Ranges.empty)
    for name in names:
        span = span_of(found[name], weight_of(held.model.trunk, name), None, clip=False)
        x = torch.cat([t.flatten() for t in seen[name]])
        assert span == (float(x.min()), float(x.max()))


def test_a_span_is_cut_where_that_moves_inputs_less() -> None:
    x = torch.randn(64, 8192)
    x[0, 0] = 12.0
    low, high = span_of(ranges_of(x), torch.ones(4, 8192), None, clip=True)
    assert high < 12
    whole = (through(x, float(x.min()), 12.0) - x).square().sum()
    assert (through(x, low, high) - x).square().sum() < whole


def test_smoothing_is_the_papers_equation_4() -> None:
    inputs, weights = torch.tensor([8.0, 2.0, 0.5]), torch.tensor([0.5, 0.5, 2.0])
    torch.testing.assert_close(smoothing(inputs, weights, 0.5), torch.tensor([4.0, 2.0, 0.5]))
    torch.testing.assert_close(smoothing(inputs, weights, 1.0), inputs)
    torch.testing.assert_close(smoothing(inputs, weights, 0.0), 1 / weights)


@pytest.mark.parametrize(("family", "divide"), [("bert", 0), ("gpt2", 4)])
def test_smoothing_alone_changes_no_answer(
    family: str, divide: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With layers that do not round."""

    def plain(
        weight: torch.Tensor, bias: torch.Tensor | None, *, span: object, factors: torch.Tensor | None
    ) -> torch.nn.Module:
        made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        made.weight = torch.nn.Parameter(weight * (1 if factors is None else factors), requires_grad=False)
        made.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
        if factors is None:
            return made
        made.register_forward_pre_hook(lambda module, given: (given[0] / factors,))
        return made

    held = held_of(tiny(family))
    before = answers(held, TEXTS)
    monkeypatch.setattr(CalibratedInt8, "of", plain)
    made = shrink(smoothquant(alpha=0.5, embeddings=False), held, rehearsal_of(held, TEXTS))
    assert made.facts["norms_that_divide"] == divide
    torch.testing.assert_close(answers(made.held, TEXTS), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.slow
def test_outlying_channels_do_less_harm_when_smoothed(family: str, tiny: Tiny) -> None:
    """The same function with one channel of each norm 100 times as large, as trained models have them."""
    found = []
    for step in (static_int8(clip=False), smoothquant(alpha=0.5), smoothquant(), smoothquant(static=False)):
        held = held_of(tiny(family))
        trunk = held.model.trunk
        by = torch.ones(held.base.width)
        by[3] = 0.01
        batch = batches_of(rehearsal_of(held, TEXTS[:2]))[0]
        for group, norm in norms_of(held.model, batch, plain_linears(held)).items():
            fold(trunk, norm, by)
            for name in group:
                weight_of(trunk, name).mul_(by)
        before = answers(held, TEXTS)
        made = shrink(step, held, rehearsal_of(held, TEXTS))
        found.append(float((answers(made.held, TEXTS) - before).square().mean()))
    plain, *smoothed = found
    assert max(smoothed) < 0.2 * plain


def test_layers_kept_stay_as_they_were(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    facts = shrink(static_int8(keep=0.25), held, rehearsal_of(held, TEXTS)).facts
    assert facts["layers"] == 9
    for name in facts["kept"]:
        assert isinstance(held.model.trunk.get_submodule(name), torch.nn.Linear)


def test_what_cannot_be_is_refused(tiny: Tiny) -> None:
    with pytest.raises(SpecError) as caught:
        smoothquant(alpha=1.5)
    told(caught, "`smoothquant.alpha`", "0..1", "it is 1.5")
    with pytest.raises(SpecError) as caught:
        smoothquant(static=False, clip=True)
    told(caught, "`smoothquant.clip`", "static")
    held = held_of(tiny("bert"))
    with pytest.raises(DataError) as error:
        shrink(static_int8(), held, rehearsal_of(held, []))
    told(error, "Texts to look at", "none", "Give rows")
