"""A share of the sequences for each core: how they are cut, that all come back, what stays as it was."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penjing.models import cores, packing
from penjing.models.cores import FEW, each, shares
from penjing.models.load import load
from penjing.models.straight import run, straight


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_core_has_a_run_of_sequences_of_about_as_many_tokens(n: int) -> None:
    lengths = tuple(range(40, 80))
    found = shares(lengths, n)
    assert sum(found, ()) == lengths
    assert len(found) == n
    assert max(map(sum, found)) - min(map(sum, found)) <= 80


@pytest.mark.parametrize("lengths", [(63, 65), (64, 9 * 64), (9 * 64, 1, 64)])
def test_few_or_uneven_tokens_stay_together(lengths: tuple[int, ...]) -> None:
    assert shares(lengths, 2) == (lengths,)


def test_parts_run_at_once_with_one_thread_each_and_come_back_in_order() -> None:
    seen, meet = list[int](), threading.Barrier(2, timeout=60)

    def work(part: int) -> Tensor:
        meet.wait()  # broken where one part waits for the other to end
        seen.append(torch.get_num_threads())
        assert torch.is_inference_mode_enabled()
        return torch.tensor(part)

    with torch.inference_mode():
        assert [int(t) for t in each(work, [5, 7], 1000)] == [5, 7]
    assert seen == [1, 1]
    assert torch.get_num_threads() == 2


def test_a_single_part_has_all_threads_or_one_and_those_begun_later_have_all() -> None:
    later = list[int]()
    each(torch.tensor, [1, 2], 1000)
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join(60)
    asked = [each(lambda part: torch.tensor(torch.get_num_threads()), [0], n) for n in (FEW - 1, FEW)]
    assert [int(one[0]) for one in asked] == [1, 2]
    assert later == [2]


@pytest.mark.parametrize("bad", [0, 1])
def test_what_a_part_raises_is_heard_when_the_others_have_ended(bad: int) -> None:
    ended = list[int]()

    def work(part: int) -> Tensor:
        if part == bad:
            raise MemoryError("none left")
        ended.append(part)
        return torch.tensor(part)

    with torch.no_grad(), pytest.raises(MemoryError):
        each(work, [0, 1], 1000)
    assert ended == [1 - bad]
    assert torch.get_num_threads() == 2
    assert [int(t) for t in each(torch.tensor, [1, 2], 1000)] == [1, 2]


def test_callers_at_once_are_all_answered() -> None:
    found = dict[int, list[int]]()

    def ask(i: int) -> None:
        found[i] = [int(t) for t in each(torch.tensor, [i, i + 1], 1000)]

    callers = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert found == {i: [i, i + 1] for i in range(8)}


def test_states_of_shares_are_those_of_the_whole(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load(str(tiny("bert")))
    base.trunk.eval().requires_grad_(False)
    lengths = [30, 20, 25, 7, 40, 22, 9]
    ids = torch.randint(5, 60, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    types, parts = torch.arange(sum(lengths)) % 2, list[int]()
    real = cores.each
    monkeypatch.setattr(cores, "each", lambda work, own, n: parts.append(len(own)) or real(work, own, n))
    with torch.inference_mode():
        assert straight(base.trunk, base.way) is not None
        parts.clear()
        for segments in (None, types):
            wanted = packing.run(base.trunk, base.way, ids, lengths, segments)
            found = run(base.trunk, base.way, ids, lengths, segments)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert parts == [2, 2]
        sizes = list[int]()
        linear = base.trunk.encoder.layer[0].output.dense
        hook = linear.register_forward_hook(lambda module, given, made: sizes.append(len(given[0])))
        run(base.trunk, base.way, ids, lengths)
        hook.remove()
    assert sizes == [sum(lengths)]  # who looks on sees all at once
