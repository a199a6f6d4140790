"""The space of a search that was given none: the methods that usually do best, and rates around their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penjing.models.shapes import SHAPES

# Name of a method: the method with its chief setting open.
OPEN: dict[str, Any] = {
    "lora": {"lora": {"rank": {"log_int": [4, 32]}}},
    "adapter": {"adapter": {"size": {"log_int": [16, 128]}}},
    "top": {"top": {"layers": {"int": [0, 2]}}},
}
SCALES = {"log": [0.3, 3.0]}  # times each method's own rate: one range fits methods whose rates differ


def opened(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a spec without a space, with one: over the method where none is named, over its chief
    setting where it has none written, and over the rate where that is not given.

    A base grown from nothing is trained in full: a trunk of random weights has nothing worth freezing.
    """
    named = values.get("method")
    found = {**values}
    if named is None and not _grown(values.get("base")):
        found["method"] = {"choose": [*OPEN.values()]}
    elif isinstance(named, str):
        found["method"] = OPEN.get(named, named)
    train = values.get("train") or {}
    if train.get("lr") is None and "lr_scale" not in train:
        found["train"] = {**train, "lr_scale": SCALES}
    return found


def _grown(base: Any) -> bool:
    return isinstance(base, Mapping) or base in SHAPES
