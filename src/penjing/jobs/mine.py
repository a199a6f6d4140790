"""Hard negatives: texts of other rows that a model takes for the right one, written beside the rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from penjing.bundle import Bundle, load
from penjing.data.related import read_related
from penjing.errors import SpecError
from penjing.files import write_text
from penjing.jobs.index import nearest


def mine(
    model: Bundle | str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    negatives: int = 4,
    skip: int = 0,
    margin: float = 0.95,
    text: str | None = None,
    base: str | None = None,
) -> int:
    """Write rows of anchors and positives with hard negatives beside them: the nearest texts of other rows,
    as JSON lines that `embed` reads. Returns how many were found.

    A text is no negative where it is nearer than `margin` times the positive, as it may belong to the anchor
    after all (Moreira et al. 2024, arXiv 2407.15831). `skip` leaves out so many of the nearest.

    Raises:
        DataError: the rows cannot be read. SpecError: settings that cannot be.
    """
    if negatives < 1 or skip < 0 or not 0 < margin <= 1:
        raise SpecError(
            "Mining wants at least 1 negative, `skip` of at least 0 and a margin in 0..1; they are "
            f"{negatives}, {skip} and {margin:g}. Mend them."
        )
    bundle = model if isinstance(model, Bundle) else load(model, base=base)
    items = read_related(data, text=text).items or []
    belongs: dict[str, set[str]] = {}
    for a, b, _ in items:
        belongs.setdefault(a, {a}).add(b)
    anchors, texts = list(belongs), list(dict.fromkeys(b for _, b, _ in items))
    queries, vectors = bundle.embed(anchors), bundle.embed(texts)
    most = max(map(len, belongs.values()))
    near, rows = nearest(vectors, queries, min(len(texts), negatives + skip + most + 50))
    place, where = {a: i for i, a in enumerate(anchors)}, {t: i for i, t in enumerate(texts)}
    lines, n_found = [], 0
    for a, b, rest in items:
        i = place[a]
        limit = margin * float(queries[i] @ vectors[where[b]])
        hard = [texts[row] for score, row in zip(near[i], rows[i], strict=True)
                if texts[row] not in belongs[a] and score < limit][skip : skip + negatives]  # fmt: skip
        n_found += len(hard)
        row = {"anchor": a, "positive": b, "negatives": list(dict.fromkeys([*rest, *hard]))}
        lines.append(json.dumps(row, ensure_ascii=False))
    write_text(Path(out), "\n".join(lines) + "\n")
    return n_found
