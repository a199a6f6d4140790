"""Label cells of any type to tuples of label names: one, several, or none (an empty cell)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from penjing.data.lists import literal

_MISSING = frozenset(("nan", "NaN", "None", "null", "NULL", "<NA>", "#N/A"))
LISTING = ("|", ";", "；", "、", ",", "，")  # signs that divide a list
_SEPARATORS = (*LISTING, "/", " ")
_WHOLE = re.compile(r"[-+]?\d+\.0+$")
_QUOTED = re.compile(r"""(['"])(.+?)\1""")
_YES = frozenset(("1", "1.0", "true", "yes", "y", "是"))
_NO = frozenset(("0", "0.0", "false", "no", "n", "否", ""))


def is_missing(value: Any, *, typed: bool) -> bool:
    """Whether a cell is empty: nothing, blanks, not a number; in untyped files also NaN, None, null."""
    if isinstance(value, str):
        return not value or value.isspace() or (not typed and value.strip() in _MISSING)
    return value is None or (isinstance(value, float) and value != value)


def label_names(value: Any, *, names: Sequence[str] | None = None, typed: bool = False) -> tuple[str, ...]:
    """The label names in a cell, each once: `1.0` is `1`, a list is several, integers look up `names`."""
    if isinstance(value, list | tuple | set):
        inner = (name for one in value for name in label_names(one, names=names, typed=typed))
        return tuple(dict.fromkeys(inner))
    if is_missing(value, typed=typed):
        return ()
    if names is not None and isinstance(value, int) and not isinstance(value, bool):
        return (
            (names[value],) if 0 <= value < len(names) else ()
        )  # datasets writes -1 where there is no label
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)),)
    text = str(value).strip()
    return (text.partition(".")[0] if _WHOLE.match(text) else text,)


def find_separator(cells: Iterable[str], *, signs: Sequence[str] = _SEPARATORS) -> str | None:
    """The sign between labels of one cell: of those that seem to divide lists, the one that leaves the fewest
    distinct labels."""
    whole = [*dict.fromkeys(cells)]
    best, fewest = None, float("inf")
    for sign in signs:
        parts = Counter(part for cell in whole for part in _split(cell, sign))
        joined = [part for cell in whole if sign in cell for part in _split(cell, sign)]
        if joined and len(parts) < fewest and _divides(sign, parts, joined, whole):
            best, fewest = sign, len(parts)
    return best


def _divides(sign: str, parts: Counter[str], joined: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether a sign stands between labels. Where it belongs to names, what it parts stands nowhere else.

    `joined` are the parts of the cells that hold it. One long list brings many labels that no other cell has,
    so a sign of lists is believed where most parts occur again; blanks and the like must leave fewer labels.
    """
    again = sum(parts[part] > 1 for part in joined)
    if sign in LISTING and again > len(joined) / 2:
        return True
    many = sum(sign in cell for cell in whole) > 0.2 * len(whole)
    return (again == len(joined) or many) and len(parts) < len(whole)


def split_label(cell: str, sign: str | None) -> tuple[str, ...]:
    """The labels of one cell; a list written as text (`['a', 'b']`, `["a", null]`, numpy's `['a' 'b']`) is
    taken apart too."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return label_names(literal(cell))
        except (ValueError, SyntaxError):
            quoted = tuple(dict.fromkeys(match[2] for match in _QUOTED.finditer(cell)))
            return quoted or _split(cell[1:-1], sign or ",")
    return _split(cell, sign) if sign else (cell,)


def _split(cell: str, sign: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in cell.split(sign) if part.strip()))


def chosen(cells: Sequence[Any], columns: Sequence[str]) -> tuple[str, ...] | None:
    """Columns of zeros and ones to the names of the ones; None where a cell is neither."""
    words = ["" if is_missing(cell, typed=False) else str(cell).strip().lower() for cell in cells]
    if any(word not in _YES and word not in _NO for word in words):
        return None
    return tuple(column for column, word in zip(columns, words, strict=True) if word in _YES)
