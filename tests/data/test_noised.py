"""Words masked, swapped and dropped: what changes, what stays, and what goes with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from penjing.data.noised import noised
from penjing.records import Batch

LENGTHS = [7, 4, 9]
IDS = torch.tensor([1, 10, 11, 12, 13, 14, 2, 1, 20, 21, 2, 1, 30, 31, 32, 33, 34, 35, 36, 2])
BATCH = Batch(IDS, torch.tensor(LENGTHS), torch.arange(3), 3.0, (0, 1, 2), segments=IDS // 10)
SPECIAL = {0, 1, 2}


def changed(how: str, share: float, batch: Batch = BATCH, seed: int = 0) -> Batch:
    return noised(batch, how, share, special=SPECIAL, mask=99, seed=[seed])


@pytest.mark.parametrize("how", ["mask", "swap", "drop"])
def test_no_share_changes_nothing_and_a_seed_says_all(how: str) -> None:
    assert torch.equal(changed(how, 0.0).ids, IDS)
    assert torch.equal(changed(how, 0.5, seed=3).ids, changed(how, 0.5, seed=3).ids)
    assert any(not torch.equal(changed(how, 0.5, seed=i).ids, changed(how, 0.5).ids) for i in range(1, 9))


def test_all_words_are_masked_and_no_special_token() -> None:
    assert changed("mask", 1.0).ids.tolist() == [i if i in SPECIAL else 99 for i in IDS.tolist()]


def test_words_are_swapped_within_their_sequence() -> None:
    found = [part.tolist() for part in changed("swap", 1.0).ids.split(LENGTHS)]
    assert found == [[1, 11, 10, 13, 12, 14, 2], [1, 21, 20, 2], [1, 31, 30, 33, 32, 35, 34, 36, 2]]


def test_dropping_leaves_each_sequence_its_first_word() -> None:
    found = changed("drop", 1.0)
    assert [part.tolist() for part in found.ids.split(found.lengths.tolist())] == [
        [1, 10, 2],
        [1, 20, 2],
        [1, 30, 2],
    ]
    assert torch.equal(found.segments, found.ids // 10)  # type: ignore[arg-type]
    assert torch.equal(found.labels, torch.arange(3))  # type: ignore[arg-type]


def test_labels_of_tokens_go_with_them() -> None:
    tagged = replace(BATCH, labels=torch.where(IDS > 2, IDS, -100), n_targets=14.0)
    found = changed("drop", 0.5, tagged)
    assert torch.equal(found.labels, torch.where(found.ids > 2, found.ids, -100))  # type: ignore[arg-type]
    assert found.n_targets == float((found.ids > 2).sum()) < 14


def test_about_the_share_asked_for_is_changed() -> None:
    many = replace(BATCH, ids=IDS.repeat(200), lengths=BATCH.lengths.repeat(200))
    masked = (changed("mask", 0.2, many).ids == 99).sum() / (many.ids > 2).sum()
    assert float(masked) == pytest.approx(0.2, abs=0.03)
    assert np.isin(changed("mask", 0.2, many).ids[many.ids <= 2].numpy(), [1, 2]).all()
