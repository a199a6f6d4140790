"""Set rows aside: stratified by label, equal and near texts on one side, whatever the order of rows."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np

from penjing.data.duplicates import near_groups, normal
from penjing.errors import DataError, SpecError
from penjing.plural import counted
from penjing.records import Rows

_RARE = 10  # label sets with fewer rows are put together by their rarest label


def split(
    rows: Rows, *, share: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(train, valid) row indexes, ascending; about `share` of each label's rows are in valid.

    Rows of one group stay together; every label keeps at least one row in train. Which rows go depends on
    their texts and the seed, not on their order.

    Args:
        share: of the rows, in 0..1, for valid.
        groups: (n,) group of each row, as `near_groups` gives; found when not given.

    Raises:
        SpecError: `share` is not between 0 and 1.
        DataError: nothing can be set aside: too few rows, one group, or each label has one group only.
    """
    if not 0 < share < 1:
        raise SpecError(
            f"`data.valid_share` must lie between 0 and 1; it is {share:g}. Write 0.1 for a tenth."
        )
    units = _units(rows, seed, groups)
    wanted = _allotted(rows, units, share)
    left = Counter(label for labels in rows.labels for label in labels)
    valid: list[int] = []
    for stratum, members in units.items():
        room = wanted[stratum]
        for _, unit in members:
            taken = Counter(label for i in unit for label in rows.labels[i])
            # Half of a group may stand over, so that large groups neither always stay nor always go.
            if room <= 0 or len(unit) > 2 * room or any(left[label] <= n for label, n in taken.items()):
                continue
            left.subtract(taken)
            valid += unit
            room -= len(unit)
    if not valid or len(valid) == len(rows):
        n_groups = sum(map(len, units.values()))
        why = "each label needs a row for training" if left else "none is small enough to be set aside whole"
        raise DataError(
            f"{len(rows):,} rows were to be split, {share:.0%} for validation; they are "
            f"{counted(n_groups, 'group')} of (nearly) equal texts, and {why}. Add rows, or give a "
            f"validation file with `valid:`."
        )
    chosen = np.zeros(len(rows), bool)
    chosen[valid] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def folds(
    rows: Rows, *, n_folds: int, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, valid) row indexes of each fold; every row is in valid once, groups together as in `split`.

    A label whose rows are one group is in valid of one fold, and then missing from that fold's train.

    Raises:
        SpecError: fewer than two folds.
        DataError: fewer groups than folds.
    """
    if n_folds < 2:
        raise SpecError(f"At least 2 folds are wanted; `folds` is {n_folds}. Use 5.")
    units = _units(rows, seed, groups)
    n_groups = sum(map(len, units.values()))
    if n_groups < n_folds:
        raise DataError(
            f"{n_folds} folds were wanted; the {len(rows):,} rows are {n_groups} groups of (nearly) equal "
            f"texts. Use fewer folds."
        )
    fold_of = np.zeros(len(rows), np.int64)
    total = np.zeros(n_folds, np.int64)
    for members in units.values():
        here = np.zeros(n_folds, np.int64)
        for _, unit in members:
            fold = int(np.lexsort((total, here))[0])
            fold_of[unit] = fold
            here[fold] += len(unit)
            total[fold] += len(unit)
    return [(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(n_folds)]


def _units(
    rows: Rows, seed: int, groups: np.ndarray | None
) -> dict[tuple[str, ...], list[tuple[bytes, list[int]]]]:
    """Stratum to its groups of rows, in an order that only texts and seed decide."""
    if len(rows) < 2:
        raise DataError(
            f"At least 2 rows are needed to set some aside; there is {len(rows)}. Add rows, or give a "
            f"validation file with `valid:`."
        )
    groups = near_groups(rows.texts) if groups is None else groups
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    strata = _strata(rows)
    units: dict[tuple[str, ...], list[tuple[bytes, list[int]]]] = defaultdict(list)
    salt = f"{seed}\0".encode()
    for part in np.split(order, edges):
        unit = part.tolist()
        # The commonest label set of the group; of several the first by name.
        kinds = Counter(strata[rows.labels[i]] for i in unit)
        stratum = min(kinds, key=lambda kind: (-kinds[kind], kind))
        text = min(normal(rows.texts[i]) for i in unit)
        units[stratum].append(
            (hashlib.blake2b(salt + text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), unit)
        )
    return {stratum: sorted(units[stratum]) for stratum in sorted(units)}


def _strata(rows: Rows) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Label set to stratum: itself, or its rarest label where the set is rare and has several."""
    sets = Counter(rows.labels)
    counts = Counter[str]()
    for labels, n in sets.items():
        counts.update(dict.fromkeys(labels, n))
    return {
        labels: labels
        if len(labels) < 2 or n >= _RARE
        else (min(labels, key=lambda label: (counts[label], label)),)
        for labels, n in sets.items()
    }


def _allotted(
    rows: Rows, units: dict[tuple[str, ...], list[tuple[bytes, list[int]]]], share: float
) -> dict[tuple[str, ...], int]:
    """Rows of each stratum for valid: the share rounded down, what is missing by largest remainders."""
    exact = {stratum: share * sum(len(unit) for _, unit in members) for stratum, members in units.items()}
    wanted = {stratum: int(value) for stratum, value in exact.items()}
    missing = max(1, round(share * len(rows))) - sum(wanted.values())
    # A stratum of one group can give nothing, so it does not take a turn.
    able = [stratum for stratum in units if len(units[stratum]) > 1] or list(units)
    for stratum in sorted(able, key=lambda s: (wanted[s] - exact[s], units[s][0][0]))[: max(0, missing)]:
        wanted[stratum] += 1
    return wanted
