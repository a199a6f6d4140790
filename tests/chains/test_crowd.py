"""Trials of a search that train at once, and those that cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing.chains import crowd
from penjing.chains import search as chain
from penjing.chains.runners import alone
from penjing.chains.search import search
from searches import asked, decisions, lines

pytestmark = pytest.mark.slow  # every test is a search


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many trials go on together, each time that some do."""
    sizes: list[int] = []
    real = crowd.advance_together

    def told(untils: Any) -> Any:
        sizes.append(len(untils))
        return real(untils)

    monkeypatch.setattr(crowd, "advance_together", told)
    return sizes


def test_several_at_once_end_alike_in_a_bank_and_one_by_one(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = asked(tiny, tmp_path)
    values["search"] |= {"at_once": 3}
    sizes = counted(monkeypatch)
    banked = search(values, name="banked")
    assert max(sizes) > 1
    monkeypatch.setattr(chain, "banked", lambda shared, ends: alone(shared))
    single = search(values, name="single")
    assert [line["begun"] for line in lines(banked) if "begun" in line][:3] == [0, 1, 2]
    assert decisions(banked) == decisions(single)


@pytest.mark.parametrize("method", [{"lora": {"rank": {"choose": [2, 4]}}}, {"top": {"layers": 0}}])
def test_trials_that_gain_from_it_train_together_by_themselves(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    values = asked(tiny, tmp_path, method=method)
    values["train"] |= {"batch": 2, **({"trunk_cache": True} if "top" in method else {})}
    sizes = counted(monkeypatch)
    banked = search(values, name="banked")
    assert sizes == [4, 2]
    assert lines(banked)[0] == {"at_once": 4}
    monkeypatch.setattr(chain, "banked", lambda shared, ends: alone(shared))
    values["search"] |= {"at_once": 4}
    assert decisions(search(values, name="single")) == decisions(banked)


def test_folds_of_heads_learn_each_from_its_own_rows(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = asked(tiny, tmp_path, method={"top": {"layers": 0}})
    values["train"] |= {"batch": 2, "trunk_cache": True}
    values["search"] |= {"trials": 3, "folds": 3}  # of unequal size
    sizes = counted(monkeypatch)
    banked = search(values, name="banked")
    assert sizes[0] == 9
    monkeypatch.setattr(chain, "banked", lambda shared, ends: alone(shared))
    values["search"] |= {"at_once": lines(banked)[0]["at_once"]}
    assert decisions(search(values, name="single")) == decisions(banked)


def test_trials_that_cannot_share_a_bank_are_told_one_by_one(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = asked(tiny, tmp_path, method={"choose": ["bitfit", "full"]}, name="unlike")
    values["search"] |= {"at_once": 3, "trials": 3, "first_share": 1.0}
    journal = tmp_path / "runs" / "unlike" / "search.jsonl"
    told: list[int] = []
    real = crowd.carry_on

    def counted(*args: Any) -> Any:
        told.append(journal.read_text().count('"ended"'))
        return real(*args)

    monkeypatch.setattr(crowd, "carry_on", counted)
    search(values)
    assert told == [0, 1, 2]
