"""Numbers with their nouns: `1 row`, `1,204 rows`."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """`n` with what is said of one or of many; `many` is `one` with an s when not given.

    `counted(1, "text stands", "texts stand")` is `1 text stands`.
    """
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"
