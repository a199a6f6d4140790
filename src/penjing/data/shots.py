"""Few rows a class, drawn by seed and text; and labels' names as rows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from penjing.data.duplicates import normal
from penjing.errors import DataError
from penjing.records import Rows


def draw(rows: Rows, *, shots: int, seed: int, valid: bool) -> tuple[np.ndarray, np.ndarray]:
    """(train, valid) row indexes, ascending: `shots` rows of each label, and with `valid` as many others
    (fewer where a label has no more). Which rows go depends on their texts and the seed, not on their order;
    of rows with equal texts the first counts.

    Raises:
        DataError: a label has too few rows.
    """
    salt = f"{seed}\0".encode()
    of_label: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    seen: set[str] = set()
    for i, (text, labels) in enumerate(zip(rows.texts, rows.labels, strict=True)):
        plain = normal(text)
        if plain not in seen and len(labels) == 1:
            seen.add(plain)
            key = hashlib.blake2b(salt + plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            of_label[labels[0]].append((key, i))
    wanted = shots + int(valid)
    least = min(of_label, key=lambda label: len(of_label[label]), default=None)
    if least is None or len(of_label[least]) < wanted:
        n_rows = 0 if least is None else len(of_label[least])
        more = " and at least one more for validation" if valid else ""
        raise DataError(
            f"`few_shot.shots` asks for {shots} different texts a label{more}; `{least}` has {n_rows} in "
            f"{', '.join(rows.files[:3])}. Add rows, lower `shots`, or leave it out to learn from all rows."
        )
    ordered = [[i for _, i in sorted(found)] for found in of_label.values()]
    train = np.sort(np.concatenate([found[:shots] for found in ordered]))
    held = np.concatenate([found[shots : 2 * shots] for found in ordered]) if valid else train[:0]
    return train, np.sort(held)


def named(labels: Sequence[str], words: Mapping[str, str] | None = None) -> dict[str, str]:
    """What each label is called in running text: `words`, else its name with blanks for underscores."""
    return {label: (words or {}).get(label, label.replace("_", " ")) for label in labels}


def descriptions(called: Mapping[str, str]) -> Rows:
    """One row a label: what it is called, as an example of itself."""
    n = len(called)
    return Rows(
        list(called.values()),
        [(label,) for label in called],
        ("the labels' names",),
        np.zeros(n, dtype=np.int32),
        np.arange(1, n + 1, dtype=np.int64),
    )


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both, one after the other."""
    return Rows(
        first.texts + second.texts,
        first.labels + second.labels,
        first.files + second.files,
        np.concatenate([first.file_of, second.file_of + len(first.files)]).astype(np.int32),
        np.concatenate([first.lines, second.lines]),
        first.notes + second.notes,
    )
