"""Whose code may run: a bundle may name functions of other packages, which are imported only where the caller
allows it. What penjing brings is always fine; so is what a spec of this very process has named, as its writer
asked for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

from penjing.errors import NotSupported

_allowed: set[str] = set()
_opening: ContextVar[tuple[str, frozenset[str]] | None] = ContextVar("opening", default=None)


def allow(names: Iterable[str]) -> None:
    """From now on bundles may name functions below these packages."""
    _allowed.update(names)


@contextlib.contextmanager
def opening(place: object, trust: Iterable[str]) -> Iterator[None]:
    """Inside, names come from the bundle at `place`: those of packages in `trust` may be imported, too."""
    before = _opening.set((str(place), frozenset(trust)))
    try:
        yield
    finally:
        _opening.reset(before)


def check(kind: str, name: str) -> None:
    """Call before a dotted name is imported.

    Raises:
        NotSupported: a bundle names it, and nobody has allowed its package.
    """
    given = _opening.get()
    if given is None:  # the user's own spec or command
        _allowed.add(name)
        return
    place, trust = given
    if not any(name == one or name.startswith(f"{one}.") for one in (*trust, *_allowed)):
        package = name.partition(".")[0]
        raise NotSupported(
            f"The bundle {place} names `{name}` ({kind}), which is not penjing's: opening it would run "
            f"code of the package `{package}`. Nothing was imported. If you know that code, allow it: "
            f'`load(…, trust=["{package}"])`, or `penjing --trust {package} …`.'
        )
