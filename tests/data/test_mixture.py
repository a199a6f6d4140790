"""Steps hold sources by their shares, and no piece comes twice before all came once."""

import numpy as np
import pytest

from penjing.data.mixture import mixed_order, refuse_empty, shares_of
from penjing.errors import DataError, SpecError
from penjing.records import NO_ROWS, Part, Tokens

TARGETS = np.repeat([0, 1], [300, 100])[:, None]
PART = Part(NO_ROWS, Tokens(np.zeros(400, np.uint16), np.arange(401)), TARGETS)


def test_steps_hold_sources_by_their_shares() -> None:
    steps = mixed_order(np.array([0.25, 0.75]))(PART, 16, 0, 0)
    assert {len(step) for step in steps} == {16}
    counts = np.array([np.bincount(TARGETS[step, 0], minlength=2) for step in steps])
    assert (abs(counts - [4, 12]) <= 1).all()
    assert counts.sum(0).tolist() == [100, 300]


def test_all_pieces_of_a_source_come_before_one_comes_again() -> None:
    order = mixed_order(np.array([0.25, 0.75]))
    seen = np.concatenate([row for epoch in range(3) for row in order(PART, 16, 0, epoch)])
    small = seen[TARGETS[seen, 0] == 1]
    for turn in range(len(small) // 100):
        assert len(set(small[100 * turn : 100 * (turn + 1)])) == 100
    large = seen[TARGETS[seen, 0] == 0]
    assert len(set(large)) == len(large) == 300


def test_an_order_repeats_and_epochs_differ() -> None:
    order = mixed_order(np.array([0.5, 0.5]))
    one, same, other = order(PART, 16, 0, 1), order(PART, 16, 0, 1), order(PART, 16, 0, 2)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))


def test_weights_are_told_by_name() -> None:
    assert shares_of({"b": 3, "a": 1}, ("a", "b")).tolist() == [0.25, 0.75]
    with pytest.raises(SpecError, match=r"names the source `newz`; .* a, news.*Did you mean `news`"):
        shares_of({"a": 1, "newz": 1}, ("a", "news"))
    with pytest.raises(SpecError, match=r"every source a share above 0; `b` has none"):
        shares_of({"a": 1}, ("a", "b"))


def test_a_source_without_a_piece_is_told() -> None:
    refuse_empty(PART, ("a", "b"))
    with pytest.raises(DataError, match="`c` is too short to have one of the 400 pieces"):
        refuse_empty(PART, ("a", "b", "c"))
