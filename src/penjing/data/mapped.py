"""Files of numbers in the cache: safetensors, read by memory-mapping, without a copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

_TYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: the same bits
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
}
_LONGEST_HEADER = 100_000  # bytes


def mapped(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """A safetensors file's notes and its arrays, read-only.

    Raises:
        OSError, ValueError, KeyError: it is not such a file, or cut off.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > _LONGEST_HEADER:
            raise ValueError(f"{path} has a header of {size} bytes")
        header = json.loads(stream.read(size))
    notes: dict[str, str] = header.pop("__metadata__", {})
    return notes, {name: _array(path, about, 8 + size) for name, about in header.items()}


def _array(path: Path, about: dict[str, Any], begin: int) -> np.ndarray:
    dtype, shape = _TYPES[about["dtype"]], tuple(about["shape"])
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset=begin + about["data_offsets"][0], shape=shape)
