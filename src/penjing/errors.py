"""Errors a user can act on.

Every message has four parts: what was wanted, what was found (the value), where (spec key, file:line, row),
what to do; the nearest known name is offered. The text stands at the `raise`; this file only says which kinds
there are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PenjingError(Exception):
    """Any error whose text tells the user what to do. The command line prints it without a traceback."""


class SpecError(PenjingError):
    """What was asked for is not possible as written: an unknown key, a wrong type, a contradiction."""


class DataError(PenjingError):
    """Rows cannot be used as they are: a missing file or column, a bad row, an unknown label."""


class WontFit(PenjingError):
    """The job does not fit the machine (memory, disk, time)."""


class NotSupported(PenjingError):
    """A known thing that cannot be done with this base, file or platform, such as loading a pickle."""


class TrainingFailed(PenjingError):
    """Training itself went wrong: the loss is not a number, or memory ran out at the smallest micro-batch."""


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean `x`?` for the known name closest to `word`, or an empty string when none is close."""
    hits = difflib.get_close_matches(word, [*known], n=1, cutoff=0.6)
    return f" Did you mean `{hits[0]}`?" if hits else ""
