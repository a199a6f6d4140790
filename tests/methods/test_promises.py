"""The five promises of `penjing selfcheck` hold with methods that put weights of their own into the base."""

from typing import Any

import pytest

from penjing.jobs.selfcheck import selfcheck


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "method",
    [
        {"adapter": {"size": 4}},
        {"adapter": {"size": 4, "places": "parallel"}},
        {"prompt": {"tokens": 3}},
        {"prefix": {"tokens": 3}},
        {"prefix": {"tokens": 3, "hidden": 6}},
        {"p_tuning": {"tokens": 3, "version": 1}},
        {"side": {"reduction": 4}},
    ],
    ids=str,
)
def test_the_promises_hold(method: dict[str, Any], precision: str, small: dict[str, Any]) -> None:
    for difference in selfcheck({**small, "method": method, "precision": precision}):
        assert difference.held, difference
