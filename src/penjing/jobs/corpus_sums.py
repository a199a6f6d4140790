"""What became of every document of a corpus: the tallies of its parts, added up into its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.documents import TROUBLES
from penjing.corpus.shards import SPLITS
from penjing.errors import DataError

COUNTS = ("documents", "characters", "bytes")


def manifest_of(
    spec: CorpusSpec, plan: str, sifted: Sequence[Path], settled: Sequence[Path], *, made_by: str
) -> dict[str, Any]:
    """What happened to every document, added up over the parts.

    Raises:
        DataError: no document stays.
    """
    first = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in sifted]
    last = [json.loads(path.read_text(encoding="utf-8")) for path in settled]
    read = _sums(part["read"] for part in first)
    kept = {split: _sums(part["kept"][split] for part in last) for split in SPLITS}
    shards = {name: one for part in last for name, one in part["shards"].items()}
    characters = {name: kept["train"].get(name, [0, 0, 0])[1] for name in read}
    why = {
        reason: sum(n for part in (*first, *last) for n, *_ in part["dropped"].get(reason, {}).values())
        for reason in sorted({reason for part in (*first, *last) for reason in part["dropped"]})
    }
    troubles = [told for part in first for told in part["troubles"]]
    weights = _weights(spec, characters, why, troubles)
    sources = {
        name: {
            "weight": weights.get(name, 0.0),
            "read": dict(zip(COUNTS, read[name], strict=True)),
            **{split: dict(zip(COUNTS, kept[split].get(name, [0, 0, 0]), strict=True)) for split in SPLITS},
        }
        for name in sorted(read)
    }
    dropped = {}
    for reason in why:
        by_source = _sums(part["dropped"].get(reason, {}) for part in [*first, *last])
        dropped[reason] = {
            "documents": sum(one[0] for one in by_source.values()),
            "characters": sum(one[1] for one in by_source.values()),
            "sources": {name: one[0] for name, one in sorted(by_source.items())},
        }
    content = "".join(f"{name}\0{one['content']}\n" for name, one in sorted(shards.items()))
    return {
        "plan": plan,
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "made_by": made_by,
        "sources": sources,
        "dropped": dropped,
        "samples": {reason: _samples([*first, *last], reason, spec.samples) for reason in why},
        "masked": _added(part["masked"] for part in first),
        "languages": _added(part["languages"] for part in last),
        "troubles": troubles[:1000],
        "shards": shards,
        "settings": spec.written(),
    }


def _sums(counts: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for part in counts:
        for name, numbers in part.items():
            found[name] = [a + b for a, b in zip(found.get(name, [0] * len(numbers)), numbers, strict=True)]
    return found


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in counts:
        for name, n in part.items():
            found[name] = found.get(name, 0) + n
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _samples(parts: Sequence[Mapping[str, Any]], reason: str, most: int) -> list[dict[str, str]]:
    """Evenly from all parts."""
    every = [one for part in parts for one in part["samples"].get(reason, [])]
    return [every[i * len(every) // most] for i in range(most)] if len(every) > most else every


def _weights(
    spec: CorpusSpec, characters: Mapping[str, int], why: Mapping[str, int], troubles: Sequence[str]
) -> dict[str, float]:
    """Share of each source in what is drawn: as given, or by characters ** exponent."""
    there = {name: size for name, size in characters.items() if size}
    if not there:
        told = ", ".join(f"{n:,} as `{reason}`" for reason, n in sorted(why.items(), key=lambda one: -one[1]))
        ways = []
        if any(reason not in TROUBLES for reason in why):
            ways.append("the limits behind these reasons, such as `--set quality=null` for those of quality")
        if "too_long" in why:
            ways.append(f"`--set longest={10 * spec.longest}` for `too_long`")
        if troubles:
            ways.append(f"what cannot be read ({troubles[0].rstrip('.')})")
        raise DataError(
            f"A corpus was to be made; every document was dropped: {told or 'there was none'}. Change "
            f"{'; '.join(ways) or 'what is read'}."
        )
    wanted = spec.weights
    if wanted is None:
        wanted = {name: size**spec.exponent for name, size in there.items()}
    total = sum(wanted[name] for name in there)
    return {name: wanted[name] / total for name in there}
