"""The proof of a step: held-out rows and edge cases through original and artefact, kept as parity.json.

What is asked of every step: no answer depends on who shares its batch, and no more of the score is lost than
allowed, on all held-out rows. A compressor that says its answers to the rows it saw stay what they were
(`exact`) is held to that, too. How far outputs differ is told of all and judged of none: fewer bits differ.
"""

from __future__ import annotations

import json
import shutil

from penjing.chains.footing import Footing, looked_at
from penjing.chains.making import Made
from penjing.chains.weighed import Weighed, whole
from penjing.errors import NotSupported
from penjing.files import sha256
from penjing.jobs.news import News, Tell
from penjing.jobs.parity import Parity, Tolerance, compare

LOST = 0.01  # of a score that may be lost, where nothing else is said: a point
SAME = Tolerance(difference=1e-4, cosine=0.99999, answers=1.0, lost=None)
REPLAYED = 64  # train rows on which an exact step is held to its word


def prove(
    ground: Footing,
    made: Made,
    weight: Weighed,
    first: Weighed,
    *,
    lost: float = LOST,
    alike: float | None = None,
    allow: bool = False,
    said: str = "",
    tell: Tell,
) -> Parity:
    """The certificate of a step that weighs `weight`, where the original weighs `first`; one made before
    under the same tolerance is read.

    Raises:
        NotSupported: the artefact lies outside the tolerance, and that is not allowed; its folder is gone,
            but for that of a run, or of a step that was kept before: neither is thrown away because it is
            judged more strictly now.
    """
    allowed, folder = Tolerance(None, None, alike, lost), made.bundle.folder
    stood = (folder / "parity.json").is_file()  # it was kept when it was judged before
    known = _kept(ground, made, allowed)
    if known is None:
        tell(News("stage", f"replaying rows through the original and {said}"))
    found = known or _compared(ground, made, weight, first, allowed)
    refused = bool(found.broken) and not allow
    if known is None and (made.run is not None or not refused):
        found.keep(folder, chain=said)
    if refused:
        left = f"What was {'trained' if made.run else 'kept before'} stays in {made.run or folder}."
        if made.run is None and not stood:
            (folder / "card.json").unlink()  # first: a kill must not leave what was refused
            shutil.rmtree(folder)
            left = "It is not kept."
        raise NotSupported(
            f"`{said}` was to answer as {ground.original!r} does; it does not: {'; '.join(found.broken)}. "
            f"{left} Take gentler settings, let it lose more with `--lose` (in Python `lost=`), or keep "
            "it all the same with `--allow`."
        )
    if found.broken:
        tell(News("note", f"{said} is kept, though it is not the original: {'; '.join(found.broken)}"))
    return found


def _kept(ground: Footing, made: Made, allowed: Tolerance) -> Parity | None:
    path = made.bundle.folder / "parity.json"
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    same = known.get("judged") == ground.judged and known.get("asked") == str(allowed)
    same = same and known["files"].get("card.json") == sha256(made.bundle.folder / "card.json")
    return Parity(known, tuple(known["broken"])) if same else None


def _compared(ground: Footing, made: Made, weight: Weighed, first: Weighed, allowed: Tolerance) -> Parity:
    original, artefact, name = ground.original, made.bundle, ground.original.task.best
    found = compare(original, artefact, ground.rows, tolerance=Tolerance(None, None, allowed.answers, None))
    broken, facts = list(found.broken), dict(found.facts)
    if made.exact:
        seen = looked_at(ground.train, REPLAYED, original.labels, every_label=False, seed=ground.seed)
        exact = compare(original, artefact, seen, tolerance=SAME, edges=False)
        facts["rows_looked_at"] = exact.facts["outputs"]
        broken += [f"of rows that it saw and was to answer as before, {one}" for one in exact.broken]
    most, lost = (allowed.lost or 0.0) * whole(first, name), weight.lost or 0.0
    if lost > most + 1e-12:
        broken.append(
            f"{name} goes from {first.score:.4f} to {weight.score:.4f} on {len(ground.rows):,} rows"
        )
    score = {"name": name, "original": first.score, "artefact": weight.score, "lost": lost, "allowed": most}
    facts |= {"score": {**score, "rows": len(ground.rows)}, "judged": ground.judged}
    return Parity({**facts, "broken": broken, "asked": str(allowed)}, tuple(broken))
