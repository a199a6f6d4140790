"""Which rows make which step, how they are cut and packed: each against a plainer way to say it."""

import itertools
import time

import numpy as np
import pytest
import torch

from penjing.data.batches import (
    WINDOW,
    count_targets,
    cut,
    divide,
    halves,
    order,
    pack,
    packed,
    shuffled,
    steps,
)
from penjing.data.tokenize import in_parts
from penjing.records import NO_ROWS, Batch, Part, Tokens

LENGTHS = np.random.default_rng(0).geometric(0.05, 1003)


def tokens_of(lengths: np.ndarray) -> Tokens:
    """Row i holds the ids 1000 i, 1000 i + 1, …"""
    ids = np.concatenate([1000 * i + np.arange(n) for i, n in enumerate(lengths)]).astype(np.int32)
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]))


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize(("n", "batch"), [(1, 4), (7, 3), (8, 4), (1003, 8), (1003, 2000)])
def test_an_epoch_takes_every_row_once_in_full_steps(n: int, batch: int, group: bool) -> None:
    found = order(LENGTHS[:n], batch=batch, seed=1, epoch=0, group=group)
    assert sorted(np.concatenate(found)) == list(range(n))
    assert len(found) == -(-n // batch)
    assert sorted(len(s) for s in found)[1:] == [batch] * (len(found) - 1)


@pytest.mark.parametrize("group", [True, False])
def test_the_order_is_a_function_of_seed_and_epoch(group: bool) -> None:
    def made(seed: int, epoch: int) -> list[list[int]]:
        return [s.tolist() for s in order(LENGTHS, batch=8, seed=seed, epoch=epoch, group=group)]

    first = made(3, 2)
    np.random.default_rng(9).random(5)
    assert made(3, 2) == first
    assert made(3, 3) != first
    assert made(4, 2) != first


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("start", [0, 1, 5, 14, 15, 16, 40])
def test_beginning_at_a_step_is_skipping_those_before(start: int, group: bool) -> None:
    lengths = LENGTHS[:58]  # 15 steps an epoch, the last one short
    whole = list(itertools.islice(steps(lengths, batch=4, seed=0, group=group), start + 20))
    later = list(itertools.islice(steps(lengths, batch=4, seed=0, group=group, start=start), 20))
    assert [s.tolist() for s in whole[start:]] == [s.tolist() for s in later]


def padded_share(made: list[np.ndarray]) -> float:
    places = sum(len(s) * LENGTHS[s].max() for s in made)
    return 1 - float(LENGTHS.sum() / places)


def test_grouping_by_length_lowers_the_padded_share() -> None:
    random = padded_share(order(LENGTHS, batch=8, seed=0, epoch=0, group=False))
    grouped = padded_share(order(LENGTHS, batch=8, seed=0, epoch=0, group=True))
    assert random > 0.5
    assert grouped < 0.15


def test_grouped_steps_do_not_come_in_order_of_length() -> None:
    means = [LENGTHS[s].mean() for s in order(LENGTHS, batch=8, seed=0, epoch=0)]
    ranks = np.argsort(np.argsort(means))
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 0.3


def test_grouping_still_mixes_rows_from_epoch_to_epoch() -> None:
    def mates(epoch: int) -> set[tuple[int, int]]:
        made = order(LENGTHS, batch=8, seed=0, epoch=epoch)
        return {pair for s in made for pair in itertools.combinations(sorted(s.tolist()), 2)}

    first, second = mates(0), mates(1)
    assert len(first & second) < 0.25 * len(first)
    assert len(LENGTHS) > WINDOW * 8  # more than one window, or this would say little


@pytest.mark.parametrize("tokens", [1, 30, 200, 10**6])
def test_cut_bounds_the_tokens_and_keeps_every_row(tokens: int) -> None:
    rows = np.random.default_rng(1).permutation(len(LENGTHS))[:100]
    pieces = cut(rows, LENGTHS, tokens=tokens)
    assert sorted(np.concatenate(pieces)) == sorted(rows)
    for piece in pieces:
        assert LENGTHS[piece].sum() <= tokens or len(piece) == 1
    taken = np.concatenate(pieces)
    assert (np.diff(LENGTHS[taken]) <= 0).all()


def test_cut_fills_each_piece_as_far_as_it_goes() -> None:
    pieces = cut(np.arange(100), LENGTHS, tokens=90)
    for piece, following in itertools.pairwise(pieces):
        assert LENGTHS[piece].sum() + LENGTHS[following[0]] > 90


def test_cut_of_nothing_is_nothing() -> None:
    assert cut(np.arange(0), LENGTHS, tokens=10) == []


def test_pack_lays_the_rows_end_to_end_in_the_order_given() -> None:
    tokens = tokens_of(np.array([3, 1, 4, 2]))
    batch = pack(tokens, np.array([2, 0, 3]), labels=np.array([10, 11, 12, 13]))
    assert batch.ids.tolist() == [2000, 2001, 2002, 2003, 0, 1, 2, 3000, 3001]
    assert batch.ids.dtype == torch.int64
    assert batch.lengths.tolist() == [4, 3, 2]
    assert batch.labels is not None
    assert batch.labels.tolist() == [12, 10, 13]
    assert (batch.rows, batch.n_targets, batch.n_tokens) == ((2, 0, 3), 3.0, 9)


def test_pack_reads_ids_above_the_signed_range_of_16_bits() -> None:
    tokens = Tokens(np.array([65_535, 40_000], dtype=np.uint16), np.array([0, 2]))
    assert pack(tokens, np.array([0])).ids.tolist() == [65_535, 40_000]


def test_weights_are_what_the_mean_divides_by() -> None:
    batch = pack(
        tokens_of(np.array([1, 2, 3])),
        np.array([2, 1]),
        np.zeros(3, dtype=np.int64),
        np.array([1.0, 0.5, 4.0]),
    )
    assert batch.weights is not None
    assert batch.weights.tolist() == [4.0, 0.5]
    assert batch.n_targets == 4.5


def test_targets_are_counted_by_sequence_or_by_token_that_has_one() -> None:
    assert count_targets(3, None, None) == 3
    assert count_targets(2, torch.tensor([1, 0]), None) == 2
    assert count_targets(2, torch.zeros(2, 5), None) == 2
    assert count_targets(2, torch.tensor([-100, 4, -100, 7, 1]), None) == 3
    assert count_targets(2, torch.tensor([-100, 4]), None) == 1  # two sequences of one token each


def same(one: Batch, parts: tuple[Batch, Batch]) -> None:
    for name in ("ids", "lengths", "labels", "segments", "weights"):
        whole = getattr(one, name)
        if whole is not None:
            assert torch.equal(whole, torch.cat([getattr(p, name) for p in parts])), name
    assert one.rows == parts[0].rows + parts[1].rows
    assert one.n_targets == pytest.approx(sum(p.n_targets for p in parts))
    assert all(p.n_tokens == int(p.lengths.sum()) for p in parts)


def test_halves_of_labelled_sequences_are_the_whole() -> None:
    tokens = tokens_of(np.array([3, 1, 4, 2, 2]))
    weights = np.linspace(0.5, 2.5, 5, dtype=np.float32)
    batch = pack(tokens, np.arange(5), np.arange(5), weights)
    parts = halves(batch)
    assert parts is not None
    same(batch, parts)
    assert [len(p.lengths) for p in parts] == [2, 3]


def test_halves_of_labelled_tokens_are_the_whole() -> None:
    labels = torch.tensor([-100, 1, 2, -100, 0, 5, -100])
    segments = torch.tensor([0, 0, 1, 0, 0, 1, 1])
    batch = Batch(torch.arange(7), torch.tensor([3, 4]), labels, 4.0, (8, 9), segments)
    parts = halves(batch)
    assert parts is not None
    same(batch, parts)
    assert [p.n_targets for p in parts] == [2.0, 2.0]


def test_halves_of_several_labels_a_row_are_the_whole() -> None:
    batch = pack(tokens_of(np.array([3, 1, 4])), np.arange(3), np.eye(3, dtype=np.float32))
    parts = halves(batch)
    assert parts is not None
    same(batch, parts)


def test_one_sequence_cannot_be_halved() -> None:
    assert halves(pack(tokens_of(np.array([9])), np.array([0]))) is None


def test_halving_again_and_again_ends_with_single_rows() -> None:
    tokens, waiting, singles = tokens_of(LENGTHS[:13]), [], []
    waiting.append(pack(tokens, np.arange(13)))
    while waiting:
        batch = waiting.pop()
        parts = halves(batch)
        if parts is None:
            singles.append(batch.rows[0])
        else:
            waiting.extend(parts)
    assert sorted(singles) == list(range(13))


def test_rows_of_unequally_many_sequences_are_dealt_whole() -> None:
    tokens = in_parts(tokens_of(np.array([4, 4, 2, 2, 2, 10])), [2, 3, 1])
    shares = divide([pack(tokens, np.arange(3))], 2)
    assert [[batch.rows for batch in share] for share in shares] == [[(0, 1)], [(2,)]]
    assert [batch.lengths.tolist() for share in shares for batch in share] == [[4, 4, 2, 2, 2], [10]]


@pytest.mark.parametrize("index", [[3, 0, 3], [], [4], [2, 1]])
def test_taken_rows_are_the_rows(index: list[int]) -> None:
    tokens = tokens_of(np.array([3, 1, 4, 0, 2]))
    taken = tokens.take(np.array(index, dtype=np.int64))
    assert len(taken) == len(index)
    for at, row in enumerate(index):
        own = taken.ids[taken.starts[at] : taken.starts[at + 1]]
        assert own.tolist() == tokens.ids[tokens.starts[row] : tokens.starts[row + 1]].tolist()
    assert taken.ids.dtype == tokens.ids.dtype


def test_a_million_rows_are_taken_quickly() -> None:
    tokens = Tokens(np.zeros(4_000_000, np.uint16), np.arange(0, 4_000_001, 4))
    began = time.process_time()  # another process's work is none of ours
    assert len(tokens.take(np.arange(1_000_000)[::-1])) == 1_000_000
    assert time.process_time() - began < 1.0  # row by row it took several times as long


def test_marks_go_with_their_sequences() -> None:
    lengths, marks = np.array([3, 1, 4]), np.array([[0, 2], [0, 0], [1, 3]])
    part = Part(NO_ROWS, tokens_of(lengths), np.zeros(3, dtype=np.int64), marks=marks)
    batch = packed(part, np.array([2, 0, 1]))
    assert batch.marks is not None
    assert batch.marks.tolist() == [[1, 3], [0, 2], [0, 0]]
    parts = halves(batch.to("cpu"))
    assert parts is not None
    assert [half.marks.tolist() for half in parts if half.marks is not None] == [[[1, 3]], [[0, 2], [0, 0]]]


def test_rows_that_are_compared_with_each_other_are_mixed_whatever_their_length() -> None:
    part = Part(NO_ROWS, tokens_of(np.arange(1, 11)), np.zeros((10, 1)))
    steps = shuffled(part, 4, seed=0, epoch=1)
    assert [len(rows) for rows in steps] == [4, 4, 2]
    assert sorted(np.concatenate(steps).tolist()) == list(range(10))
    again, other = (shuffled(part, 4, seed=0, epoch=epoch) for epoch in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(steps, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(steps, other, strict=True))
