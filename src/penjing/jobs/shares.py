"""Saved tensors, whole in one file or in shares over several, read as a process needs them.

A sharded run's processes each write their rows of every tensor (`share-…-RANK-of-WORLD.safetensors`), and
the first then names those files, with what is not sharded, in the one file whose replacement makes the save
count. So a kill leaves the old state or the new one, and any number of processes can read it: each takes the
rows it wants from the files that hold them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from penjing.engine.ranks import Ranks
from penjing.engine.sharding import first_row
from penjing.files import write_with


def write(
    path: Path, tensors: Mapping[str, Tensor], plain: dict[str, Any], *, step: int, ranks: Ranks
) -> None:
    """Write tensors and JSON values. Where tensors are sharded, all processes must come here; else the first
    one writes and the others do nothing.

    Raises:
        CannotWrite: no room or no right; what was saved before stays.
    """
    from safetensors.torch import save_file

    own = {key: t for key, t in tensors.items() if isinstance(t, DTensor)}
    about: dict[str, Any] = {"plain": plain}
    if ranks.sharded:
        name = f"share-{step}-{ranks.rank}-of-{ranks.world}.safetensors"
        rows = {key: first_row(t) for key, t in own.items()}
        shares = {key: t.to_local().detach().contiguous() for key, t in own.items()}
        meta = {"rows": json.dumps(rows)}
        write_with(path.parent / name, lambda aside: save_file(shares, aside, metadata=meta))
        about |= {"shares": ranks.gather(name), "shapes": {key: [*t.shape] for key, t in own.items()}}
    if ranks.first:
        whole = {key: t.detach().contiguous() for key, t in tensors.items() if key not in own}
        meta = {key: json.dumps(value) for key, value in about.items()}
        write_with(path, lambda aside: save_file(whole, aside, metadata=meta))
        for old in path.parent.glob("share-*.safetensors"):
            if old.name not in about.get("shares", ()):
                old.unlink(missing_ok=True)


class Saved:
    """What `write` wrote, open: JSON values in `plain`, tensors by key."""

    def __init__(self, path: Path, files: contextlib.ExitStack) -> None:
        from safetensors import safe_open

        def opened(name: str) -> Any:
            return files.enter_context(safe_open(path.parent / name, framework="pt"))

        main = opened(path.name)
        about = {key: json.loads(value) for key, value in main.metadata().items() if key != "format"}
        self.plain: dict[str, Any] = about["plain"]
        self._shapes: dict[str, tuple[int, ...]] = {k: tuple(v) for k, v in about.get("shapes", {}).items()}
        self._parts: dict[str, list[tuple[Any, int]]] = {key: [(main, 0)] for key in main.keys()}  # noqa: SIM118
        for name in about.get("shares", ()):
            share = opened(name)
            for key, first in json.loads(share.metadata()["rows"]).items():
                self._parts.setdefault(key, []).append((share, first))

    def keys(self, prefix: str = "") -> set[str]:
        """Names of the tensors that begin so."""
        return {key for key in self._parts if key.startswith(prefix)}

    def shape(self, key: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        if key in self._shapes:
            return self._shapes[key]
        return tuple(self._parts[key][0][0].get_slice(key).get_shape())

    def get(self, key: str, like: Tensor | None = None) -> Tensor:
        """The whole tensor, or this process's share of it where `like` is sharded and of its shape."""
        shape = self.shape(key)
        if not isinstance(like, DTensor) or tuple(like.shape) != shape:
            return self._rows(key, 0, shape[0]) if shape else self._parts[key][0][0].get_tensor(key)
        begin = first_row(like)
        rows = self._rows(key, begin, begin + like.to_local().shape[0])
        return DTensor.from_local(
            rows.to(like.device), like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        )

    def _rows(self, key: str, begin: int, end: int) -> Tensor:
        found = []
        for share, first in sorted(self._parts[key], key=lambda part: part[1]):
            piece = share.get_slice(key)
            low, high = max(begin - first, 0), min(end - first, piece.get_shape()[0])
            if low < high:
                found.append(piece[low:high])
        if not found:  # more processes than rows
            return self._parts[key][0][0].get_tensor(key)[:0]
        return torch.cat(found) if len(found) > 1 else found[0]


@contextlib.contextmanager
def saved(path: Path) -> Iterator[Saved]:
    """Open what `write` wrote.

    Raises:
        OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError: it is damaged, or files lack.
    """
    with contextlib.ExitStack() as files:
        yield Saved(path, files)
