"""What rows are like before training: sizes, labels, scripts, duplicates, contradictions, leaks.

`summary` counts and points at file and line; nothing is changed or left out. Equal texts are found in
`duplicates`, likely label errors in `suspects`; both are offered here too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.data.duplicates import both_groups, code_points, exact_groups, near_groups, normal, of_kind
from penjing.data.suspects import suspects
from penjing.plural import counted
from penjing.records import Rows, Tokens

__all__ = ["exact_groups", "near_groups", "normal", "remarks", "summary", "suspects"]

_LONG_WORDS = 510  # what a base of 512 positions takes, with one token a word
_MOST_LABELS = 1000
_QUANTILES = {"min": 0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1}


@dataclass(frozen=True)
class _Part:
    """One set, with the groups of its rows among the rows of all sets."""

    rows: Rows
    exact: np.ndarray
    near: np.ndarray


def summary(
    sets: Mapping[str, Rows] | Rows,
    *,
    tokens: Mapping[str, Tokens] | None = None,
    near: bool = True,
    n_examples: int = 5,
) -> dict[str, Any]:
    """What the rows of one or more sets are like, as JSON values.

    Gives `rows` (all), `sets` (for each: rows, characters, words, tokens where given, labels, script, blank,
    long, duplicates, conflicts) and `leaks` (for each pair of sets in the order given: rows of the later
    whose text, or nearly, is in the earlier). Lengths are quantiles; a word is a run of letters, or one Han
    character. Shares are in 0..1. `conflicts` are rows of equal text and unequal labels. Examples carry
    `where` (file and line).

    Args:
        tokens: token lengths to report, by set name.
        near: also look for near duplicates (Jaccard of shingles at least 0.8), about 15 s a million short
            rows.
        n_examples: most examples of each kind.
    """
    sets = {"rows": sets} if isinstance(sets, Rows) else sets
    texts = [text for rows in sets.values() for text in rows.texts]
    exact, group = both_groups(texts) if near else (exact_groups(texts),) * 2
    found: dict[str, Any] = {"rows": len(texts), "sets": {}, "leaks": []}
    begin = 0
    parts: dict[str, _Part] = {}
    for name, rows in sets.items():
        here = slice(begin, begin + len(rows))
        begin += len(rows)
        parts[name] = _Part(rows, exact[here], group[here])
        about: dict[str, Any] = {"rows": len(rows), **_shape(rows, n_examples), "labels": _labels(rows)}
        if tokens is not None and name in tokens:
            about["tokens"] = {**_quantiles(tokens[name].lengths), "cut": tokens[name].cut}
        about["duplicates"] = _duplicates(rows, exact[here], group[here], n_examples)
        about["conflicts"] = _conflicts(rows, exact[here], n_examples)
        found["sets"][name] = about
    names = list(sets)
    for i, earlier in enumerate(names):
        for later in names[i + 1 :]:
            found["leaks"].append(_leak(earlier, later, parts[earlier], parts[later], n_examples))
    return found


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    cuts = np.quantile(values, list(_QUANTILES.values()), method="nearest")
    return {
        "mean": round(float(values.mean()), 2),
        **{name: int(cut) for name, cut in zip(_QUANTILES, cuts, strict=True)},
    }


def _shape(rows: Rows, n_examples: int) -> dict[str, Any]:
    """Lengths, share of scripts, rows without a letter or digit, and rows that a usual base would cut."""
    n = len(rows)
    words, marks = np.zeros(n, np.int64), np.zeros(n, np.int64)
    script = Counter[str]()
    for begin, codes, starts in code_points(rows.texts):
        kinds, han, latin, letters = of_kind(codes)
        word = kinds == 1
        word_starts = word & ~np.concatenate([[False], word[:-1]])
        end = begin + len(starts) - 1
        words[begin:end] = np.add.reduceat((word_starts | (kinds == 2)).astype(np.int64), starts[:-1])
        marks[begin:end] = np.add.reduceat((kinds > 0).astype(np.int64), starts[:-1])
        script.update(han=int(han.sum()), latin=int(latin.sum()), other=int((letters & ~han & ~latin).sum()))
    total = max(1, sum(script.values()))
    blank, long = np.flatnonzero(marks == 0), np.flatnonzero(words > _LONG_WORDS)
    long = long[np.argsort(-words[long], kind="stable")]
    return {
        "characters": _quantiles(np.fromiter(map(len, rows.texts), np.int64, n)),
        "words": _quantiles(words),
        "script": {name: round(count / total, 4) for name, count in script.items()},
        "blank": {"n": len(blank), "examples": [_row(rows, i) for i in blank[:n_examples]]},
        "long": {
            "n": len(long),
            "words_over": _LONG_WORDS,
            "examples": [_row(rows, i) | {"words": int(words[i])} for i in long[:n_examples]],
        },
    }


def _row(rows: Rows, i: int) -> dict[str, Any]:
    text = rows.texts[i]
    return {
        "where": rows.where(i),
        "text": text if len(text) <= 120 else text[:119] + "…",
        "label": list(rows.labels[i]),
    }


def _labels(rows: Rows) -> dict[str, Any]:
    counts = Counter[str]()
    for labels, n in Counter(rows.labels).items():
        counts.update(dict.fromkeys(labels, n))
    if not counts:
        return {"n": 0}
    ranked = counts.most_common()
    return {
        "n": len(counts),
        "counts": dict(ranked[:_MOST_LABELS]),
        "imbalance": round(
            ranked[0][1] / ranked[-1][1], 2
        ),  # rows of the largest class over rows of the smallest
        "majority_share": round(ranked[0][1] / len(rows), 4),
        "single": [label for label, n in ranked if n == 1][:_MOST_LABELS],
        "alike": _alike([label for label, _ in ranked])[:_MOST_LABELS],
        "a_row": round(sum(counts.values()) / len(rows), 3),
    }


def _alike(labels: Sequence[str]) -> list[list[str]]:
    """The groups of labels that differ in capitals, width, blanks, `_` and `-` only."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(re.sub(r"(?<!^)[\s_-]+", " ", normal(label)), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _first_of(group: np.ndarray) -> np.ndarray:
    """For each row the first row of its group in the same set."""
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def _duplicates(rows: Rows, exact: np.ndarray, group: np.ndarray, n_examples: int) -> dict[str, Any]:
    here = np.arange(len(rows))
    first, first_near = _first_of(exact), _first_of(group)
    repeats = np.flatnonzero(first != here)
    near = np.flatnonzero((first_near != here) & (first == here))
    pair = lambda i, j: {"rows": [_row(rows, j), _row(rows, i)]}  # noqa: E731
    return {
        "exact": len(repeats),
        "near": len(near),
        "share": round((len(repeats) + len(near)) / max(1, len(rows)), 4),
        "examples": [pair(i, first[i]) for i in repeats[:n_examples]],
        "near_examples": [pair(i, first_near[i]) for i in near[:n_examples]],
    }


def _conflicts(rows: Rows, exact: np.ndarray, n_examples: int) -> dict[str, Any]:
    first = _first_of(exact)
    repeats = np.flatnonzero(first != np.arange(len(rows)))
    unlike = {int(first[i]) for i in repeats if set(rows.labels[i]) != set(rows.labels[first[i]])}
    members: dict[int, list[int]] = {i: [i] for i in unlike}
    for i in repeats:
        if int(first[i]) in members:
            members[int(first[i])].append(int(i))
    shown = [
        {"rows": [_row(rows, i) for i in members[at][: max(2, n_examples)]]}
        for at in sorted(members)[:n_examples]
    ]
    return {"texts": len(members), "rows": sum(map(len, members.values())), "examples": shown}


def _leak(
    earlier: str,
    later: str,
    a: _Part,
    b: _Part,
    n_examples: int,
) -> dict[str, Any]:
    equal = np.isin(b.exact, a.exact)
    near = np.isin(b.near, a.near) & ~equal

    def examples(hits: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> list[dict[str, Any]]:
        shown = np.flatnonzero(hits)[:n_examples]
        first = [int(np.flatnonzero(theirs == ours[i])[0]) for i in shown]
        return [{"in": _row(b.rows, i), "also": _row(a.rows, j)} for i, j in zip(shown, first, strict=True)]

    return {
        "from": earlier,
        "to": later,
        "exact": int(equal.sum()),
        "near": int(near.sum()),
        "share": round(float((equal | near).mean()), 4) if len(equal) else 0.0,
        "examples": examples(equal, b.exact, a.exact),
        "near_examples": examples(near, b.near, a.near),
    }


def remarks(found: dict[str, Any], *, classes: bool = True) -> list[str]:
    """What of a summary deserves a look, one sentence each, with a place; empty when all is well.

    `classes`: labels are classes, of which the first set should have many rows each.
    """
    said = []
    for i, (name, about) in enumerate(found["sets"].items()):
        n = about["rows"]
        for key, one, many, what, then in (
            ("blank", "holds", "hold", "no letter or digit", "leave them out or fill them"),
            (
                "long",
                "has",
                "have",
                f"more than {_LONG_WORDS} words",
                "their end may be cut; see `data.max_length`",
            ),
        ):
            if key in about and about[key]["n"]:
                place = about[key]["examples"][0]["where"] if about[key]["examples"] else ""
                some = f"{about[key]['n']:,} of {counted(n, 'row')} {one if about[key]['n'] == 1 else many}"
                said.append(f"{name}: {some} {what} ({place}); {then}.")
        same = about["conflicts"]
        if same["texts"]:
            places = _places(same["examples"][0]["rows"]) if same["examples"] else ""
            said.append(
                f"{name}: {counted(same['texts'], 'text stands', 'texts stand')} {same['rows']:,} times with "
                f"unequal labels ({places}); make their labels agree."
            )
        repeats = about["duplicates"]
        if repeats["share"] >= 0.01:
            said.append(
                f"{name}: {counted(repeats['exact'], 'row repeats', 'rows repeat')} another word for "
                f"word and {repeats['near']:,} nearly ({repeats['share']:.1%}); they weigh more than once."
            )
        said += _of_labels(name, about["labels"]) if classes and not i else []
    for leak in found["leaks"]:
        if leak["exact"] or leak["near"]:
            first = (leak["examples"] or leak["near_examples"] or [None])[0]
            places = f" ({_places([first['in'], first['also']])})" if first else ""
            said.append(
                f"{leak['share']:.1%} of {leak['to']} is also in {leak['from']}: "
                f"{counted(leak['exact'], 'row')} word for word, {leak['near']:,} nearly{places}; scores "
                f"there flatter."
            )
    return said


def _of_labels(name: str, labels: dict[str, Any]) -> list[str]:
    said = []
    if labels["n"] > 1 and labels["imbalance"] >= 10:
        said.append(
            f"{name}: the largest label has {labels['imbalance']:g} times the rows of the smallest; look at "
            f"macro-F1, not only at accuracy (`classify` can weigh them alike: `class_weights: balanced`)."
        )
    if alike := labels.get("alike"):
        shown = "; ".join(" and ".join(f"`{one}`" for one in group[:3]) for group in alike[:2])
        said.append(
            f"{name}: {counted(len(alike), 'label is', 'labels are')} spelled in several ways ({shown}); "
            f"each spelling is a label of its own: write them alike."
        )
    if labels.get("single"):
        n, shown = len(labels["single"]), ", ".join(labels["single"][:3])
        said.append(
            f"{name}: {counted(n, 'label has', 'labels have')} one row only ({shown}); add rows or join "
            f"labels."
        )
    return said


def _places(rows: list[dict[str, Any]]) -> str:
    return " and ".join(row["where"] for row in rows[:2])
