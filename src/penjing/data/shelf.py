"""What was computed of rows, kept on disk by what the rows say: added once, memory-mapped, shared by all.

A shelf is one folder for one way of computing. Its files hold some rows each; they are named by the SHA-256
of their content, put in place in one step and never changed. So a killed writer leaves nothing half done, two
writers cannot harm each other, and a file that was damaged is found out and thrown away. Within the folder a
row is found by its token ids, so any choice of rows, in any order, uses what was computed of them before.

Legend: n rows, D width, V values (tokens, or rows where they are pooled).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from penjing.data.mapped import mapped
from penjing.files import alone, sha256, sweep, write_bytes
from penjing.records import Tokens

KEY = 16  # bytes of a row's key


def keys_of(tokens: Tokens) -> list[bytes]:
    """A key a row: a hash of its token ids, whatever type they are kept in, of their segments, and of the
    sequences that they are read as.
    """
    ids = np.asarray(tokens.ids, dtype="<i4")
    made = []
    for row, (begin, end) in enumerate(pairwise(tokens.starts.tolist())):
        digest = hashlib.blake2b(ids[begin:end].tobytes(), digest_size=KEY)
        if tokens.segments is not None:
            digest.update(b"segments" + tokens.segments[begin:end].tobytes())
        if tokens.parts is not None:
            digest.update(b"parts" + np.asarray(tokens.parts[row], dtype="<i8").tobytes())
        made.append(digest.digest())
    return made


@dataclass(frozen=True, eq=False)
class Found:
    """Rows found on a shelf, in an order of one's own.

    Row i is `files[which[i]][first[i]:first[i] + size[i]]`.
    """

    files: tuple[np.ndarray, ...]  # (V, D) each, memory-mapped
    dtype: torch.dtype
    which: np.ndarray  # (n,) int64
    first: np.ndarray  # (n,) int64
    size: np.ndarray  # (n,) int64
    pooled: bool

    def of(self, rows: np.ndarray) -> Tensor:
        """The values of these rows, end to end, copied: (V, D)."""
        size, which = self.size[rows], self.which[rows]
        ends = np.cumsum(size)
        places = np.arange(int(ends[-1])) + np.repeat(self.first[rows] - (ends - size), size)
        out = np.empty((len(places), self.files[0].shape[1]), self.files[0].dtype)
        owner = np.repeat(which, size)
        for file in np.unique(which):
            here = owner == file
            out[here] = self.files[file][places[here]]
        return torch.from_numpy(out).view(self.dtype)

    def take(self, rows: np.ndarray) -> Found:
        """The rows at these positions, in this order."""
        return Found(self.files, self.dtype, self.which[rows], self.first[rows], self.size[rows], self.pooled)


class Shelf:
    """The rows kept in one folder. `pooled`: a row has one vector, whatever its number of tokens."""

    def __init__(self, folder: Path, dtype: torch.dtype, *, pooled: bool) -> None:
        self.folder, self.dtype, self.pooled = folder, dtype, pooled
        self._paths: list[Path] = []
        self._files: list[np.ndarray] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}  # key: file, first value, values
        self.refresh()

    def refresh(self) -> None:
        """Take in what has been added, by this process or another, since the last look."""
        known = set(self._paths)
        for path in sorted(self.folder.glob("*.safetensors")):
            if path not in known:
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            whole = sha256(path) == path.stem
            arrays = mapped(path)[1] if whole else {}
        except OSError:  # another process has just made room
            return
        if not whole:
            with contextlib.suppress(OSError):
                path.unlink()
            return
        keys, sizes = arrays["keys"].tobytes(), arrays["sizes"].tolist()
        first = 0
        for i, size in enumerate(sizes):
            key = keys[i * KEY : (i + 1) * KEY]
            self._places.setdefault(key, (len(self._files), first, size))
            first += size
        self._paths.append(path)
        self._files.append(arrays["values"])

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def add(self, keys: Sequence[bytes], sizes: np.ndarray, values: Tensor) -> None:
        """Keep the values (V, D) of rows; `sizes` (n,) int64 says how many each row has.

        Raises:
            CannotWrite: no room or no right; what stood there before is whole.
        """
        from safetensors.torch import save

        assert values.dtype == self.dtype, f"this shelf holds {self.dtype}, not {values.dtype}"
        named = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY).copy()
        content = save(
            {
                "keys": torch.from_numpy(named),
                "sizes": torch.from_numpy(np.ascontiguousarray(sizes, dtype=np.int64)),
                "values": values.detach().cpu().contiguous(),
            }
        )
        write_bytes(self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors", content)

    def find(self, keys: Sequence[bytes]) -> Found:
        """Rows that are all here, in this order. Their files are marked as used now."""
        places = np.array([self._places[key] for key in keys], dtype=np.int64).reshape(-1, 3)
        for file in np.unique(places[:, 0]):
            with contextlib.suppress(OSError):
                self._paths[file].touch()
        files = tuple(self._files)
        return Found(files, self.dtype, places[:, 0], places[:, 1], places[:, 2], self.pooled)

    def paths(self, keys: Sequence[bytes]) -> set[Path]:
        """The files in which those of the rows lie that are here."""
        return {self._paths[self._places[key][0]] for key in keys if key in self._places}

    @contextlib.contextmanager
    def held(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Add alone; another process that wants to add here waits. `waiting` is called where it is us."""
        with alone(self.folder / ".lock", waiting) as held:
            if held:  # else, at worst, two processes compute the same rows
                sweep(self.folder)
                self.refresh()
            yield
