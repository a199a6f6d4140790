"""Grouped layers against the formula written out member by member: outputs, gradients, dropout."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.models.adapters import Adapter, Flat, Stack
from penjing.models.dropout import Stream, fast_dropout
from penjing.models.grouped import GroupedDropout, GroupedLinear, Pass, seats_of
from penjing.records import Batch

WIDE, OUT = 6, 5
LENGTHS = [[4, 2], [9], [1, 1, 3]]


def batch(lengths: list[int]) -> Batch:
    total = sum(lengths)
    return Batch(torch.arange(total), torch.tensor(lengths), None, len(lengths), tuple(range(len(lengths))))


def adapter(rank: int, dropout: float = 0.0) -> Adapter:
    down, up = nn.Parameter(torch.randn(rank, WIDE)), nn.Parameter(torch.randn(OUT, rank))
    return Adapter(down, up, scale=1.0 + rank, dropout=dropout)


def together(own: list[Tensor], here: Pass) -> Tensor:
    """Rows of each member -> rows in the order of the pass."""
    return torch.cat(own)[here.seats.origin]


def apart(rows: Tensor, here: Pass) -> list[Tensor]:
    return list(rows[here.seats.place].split(here.seats.counts))


@pytest.mark.parametrize("members", [[0, 1, 2], [0, 2], [1]], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_products_and_gradients_are_those_of_each_member_alone(members: list[int], dropout: float) -> None:
    adapters = [adapter(1), adapter(3, dropout), adapter(2, dropout / 2)]
    rows, stack = (
        [Flat({"layer": a}) for a in adapters],
        Stack([{"layer": a} for a in adapters], torch.float32),
    )
    stack.load(rows)
    streams = [Stream() for _ in members]
    for stream, member in zip(streams, members, strict=True):
        stream.restart(member)
    here = Pass(seats_of([batch(LENGTHS[m]) for m in members], members, 3), stack, streams)
    layer = nn.Linear(WIDE, OUT).requires_grad_(False)
    own = [torch.randn(sum(LENGTHS[m]), WIDE) for m in members]
    x = together(own, here).requires_grad_()
    out = GroupedLinear(layer, "layer", lambda: here)(x)
    out.square().sum().backward()
    stack.unload(rows)
    assert x.grad is not None
    for member, states, found, grad in zip(members, own, apart(out, here), apart(x.grad, here), strict=True):
        mine = adapters[member]
        torch.manual_seed(member)
        states = states.clone().requires_grad_()
        down, up = (p.detach().clone().requires_grad_() for p in (mine.down, mine.up))
        wanted = layer(states) + mine.scale * fast_dropout(states, mine.dropout) @ down.t() @ up.t()
        assert torch.allclose(found, wanted, atol=1e-5)
        wanted.square().sum().backward()
        assert states.grad is not None
        assert torch.allclose(grad, states.grad, rtol=1e-4, atol=1e-4)
        for parameter, plain in ((mine.down, down), (mine.up, up)):
            assert parameter.grad is not None
            assert plain.grad is not None
            assert torch.allclose(parameter.grad, plain.grad, rtol=1e-4, atol=1e-3)
    for absent in {0, 1, 2} - set(members):
        assert not rows[absent].grads.any()


def test_dropout_draws_what_each_member_would_draw_alone() -> None:
    stack = Stack([{"layer": adapter(1)} for _ in LENGTHS], torch.float32)
    streams = [Stream() for _ in LENGTHS]
    for seed, stream in enumerate(streams):
        stream.restart(seed)
    here = Pass(seats_of([batch(n) for n in LENGTHS], [0, 1, 2], 3), stack, streams)
    layer = GroupedDropout(0.5, lambda: here)
    own = [torch.randn(sum(n), WIDE) for n in LENGTHS]
    first, second = (apart(layer(together(own, here)), here) for _ in range(2))
    for seed, states in enumerate(own):
        torch.manual_seed(seed)
        assert torch.equal(first[seed], fast_dropout(states, 0.5))
        assert torch.equal(second[seed], fast_dropout(states, 0.5))
    assert torch.equal(layer.eval()(own[0]), own[0])


def test_a_stream_stands_in_for_torchs_generator_and_gives_it_back() -> None:
    torch.manual_seed(5)
    wanted = [torch.rand(3), torch.rand(3)]
    stream, before = Stream(), torch.get_rng_state()
    stream.restart(5)
    found = []
    for _ in range(2):
        with stream.as_default():
            found.append(torch.rand(3))
        torch.rand(7)
        torch.set_rng_state(before)
    assert all(map(torch.equal, found, wanted))


def test_sequences_of_all_members_stand_by_length() -> None:
    seats = seats_of([batch(n) for n in LENGTHS], [0, 1, 2], 3)
    every = np.concatenate(LENGTHS)
    assert [int(every[i]) for i in seats.order] == sorted(every.tolist(), reverse=True)
    assert torch.equal(seats.origin[seats.place], torch.arange(int(every.sum())))
    assert seats.longest == 9


def test_parameters_in_one_row_are_the_models_own() -> None:
    one, two = adapter(2), adapter(3)
    before = [p.detach().clone() for a in (one, two) for p in (a.down, a.up)]
    row = Flat({"a": one, "b": two})
    assert row.values.numel() == 5 * (WIDE + OUT)
    assert all(map(torch.equal, before, [one.down, one.up, two.down, two.up]))
    extra = nn.Parameter(torch.zeros(2))
    joined = row.joined([two.down, one.up, extra])  # neighbours become one; what lies elsewhere stays
    assert [p.numel() for p in joined] == [2 * OUT + 3 * WIDE, 2]
    with torch.no_grad():
        joined[0].add_(1)
    assert torch.allclose(one.up, before[1] + 1)
    assert torch.allclose(two.down, before[2] + 1)
    assert torch.equal(one.down, before[0])
