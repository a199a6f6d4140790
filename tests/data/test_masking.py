"""What is hidden, how often, and what stands in its place."""

import numpy as np
import pytest

from penjing.data.masking import chosen, corrupted, framed, noise_spans, placed, spans

LENGTHS = np.full(500, 256)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_share_of_every_row_is_chosen() -> None:
    found = chosen(LENGTHS, 0.15, draw()).reshape(500, 256)
    assert set(found.sum(1)) == {round(0.15 * 256)}
    assert 0.145 < found.mean() < 0.155
    even = found.mean(0)
    assert even.min() > 0.09  # no place is spared
    assert even.max() < 0.22


def test_a_row_of_one_token_is_asked_for_it() -> None:
    assert chosen(np.array([1, 3]), 0.15, draw()).sum() == 2


def test_draws_are_those_of_the_generator() -> None:
    one, same, other = (chosen(LENGTHS, 0.15, draw(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_of_those_asked_for_80_percent_are_masked_and_10_are_others() -> None:
    ids = np.arange(len(LENGTHS) * 256) % 1000 + 10
    asked = chosen(LENGTHS, 0.15, draw())
    out = corrupted(ids, asked, draw(1), 3, np.arange(10, 100_000))
    masked, same = (out == 3)[asked].mean(), (out == ids)[asked].mean()
    assert np.array_equal(out[~asked], ids[~asked])
    assert abs(masked - 0.8) < 0.01
    assert abs(same - 0.1) < 0.01


def test_of_a_chosen_word_all_tokens_are_chosen() -> None:
    heads = (draw(5).random(LENGTHS.sum()) < 0.6).astype(np.uint8)
    found = chosen(LENGTHS, 0.15, draw(), heads)
    begins = heads.astype(bool)
    begins[::256] = True
    word = np.cumsum(begins)
    for choice in (found, spans(LENGTHS, 0.15, draw(), heads)):
        share = np.bincount(word, choice) / np.bincount(word).clip(1)
        assert set(np.unique(share[1:])) <= {0.0, 1.0}
    assert 0.12 < found.mean() <= 0.15


def test_a_word_longer_than_the_share_is_still_chosen() -> None:
    assert chosen(np.array([6]), 0.15, draw(), np.array([1, 0, 0, 0, 0, 0], np.uint8)).all()


def test_spans_are_runs_of_several_tokens() -> None:
    found = spans(LENGTHS, 0.15, draw()).reshape(500, 256)
    runs = np.maximum(np.diff(found.astype(int), axis=1), 0).sum()
    assert 2.0 < found.sum() / runs < 5.0  # single tokens would give about 1.2


@pytest.mark.parametrize("n", [7, 12, 24, 256])
def test_spans_end_where_the_share_is_reached(n: int) -> None:
    found = spans(np.full(200, n), 0.15, draw()).reshape(200, n)
    assert set(found.sum(1)) == {max(1, round(0.15 * n))}


def test_spans_are_as_long_as_spanberts() -> None:
    """Section 3.1: clipped at 10, the lengths of Geo(0.2) have the mean 3.8."""
    found = spans(np.full(60, 50_000), 0.004, draw()).reshape(60, 50_000)
    runs = np.maximum(np.diff(found.astype(int), axis=1), 0).sum()
    assert 3.65 < found.sum() / runs < 3.95


def test_rows_are_framed() -> None:
    ids, lengths, inside = framed(np.array([7, 8, 9]), np.array([2, 1]), (1,), (2, 3))
    assert ids.tolist() == [1, 7, 8, 2, 3, 1, 9, 2, 3]
    assert lengths.tolist() == [5, 4]
    assert inside.tolist() == [False, True, True, False, False, False, True, False, False]


def test_places_of_rows_follow_each_other() -> None:
    places, lengths = placed(np.array([5, 0]), np.array([7, 3]))
    assert places.tolist() == [5, 6, 0, 1, 2]
    assert lengths.tolist() == [2, 3]


def test_noise_has_t5_s_golden_lengths() -> None:
    kept, noise = noise_spans(568, 0.15, 3.0, draw())
    assert (noise.sum(), len(noise), kept.sum()) == (85, 28, 483)
    assert kept.sum() + len(noise) + 1 == 512  # the input, with sentinels and its end
    assert noise.sum() + len(noise) + 1 == 114  # the target


@pytest.mark.parametrize("n", [2, 3, 7, 50])
def test_short_rows_keep_and_lose_something(n: int) -> None:
    for seed in range(20):
        kept, noise = noise_spans(n, 0.15, 3.0, draw(seed))
        assert len(kept) == len(noise)
        assert min(kept.min(), noise.min()) >= 1
        assert kept.sum() + noise.sum() == n
