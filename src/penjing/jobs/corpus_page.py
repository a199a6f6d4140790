"""report.html of a corpus: what stays, what went and why, what the sources are like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from penjing.files import write_bytes
from penjing.jobs.corpus_words import WORDS
from penjing.jobs.figures import Bar, bars
from penjing.jobs.numbers import duration, percent, short_count
from penjing.jobs.report import rendered
from penjing.jobs.sections import Part, Table
from penjing.jobs.words import Say, speaker

PAGE = "report.html"
MOST_TROUBLES = 20


def write_page(folder: Path, manifest: Mapping[str, Any], samples: Mapping[str, Any]) -> Path:
    """Write report.html into the corpus's folder and return its path."""
    language = manifest["settings"]["report"]
    plain = speaker(language)

    def say(key: str, **blanks: Any) -> str:
        return WORDS[language][key].format(**blanks) if key in WORDS[language] else plain(key, **blanks)

    troubles = manifest["troubles"]
    page = rendered(
        "corpus.html.jinja",
        say=say,
        language=language,
        name=folder.resolve().name,
        **_top(manifest, say),
        dropped=_dropped(manifest, samples, say),
        kept=_kept(manifest, say),
        sources=_sources(manifest, say),
        rich=_rich(manifest, say),
        languages=_counts(manifest["languages"], say("language"), say("documents")),
        masked=_counts(manifest["masked"], say("kind"), say("times")),
        troubles=[
            *troubles[:MOST_TROUBLES],
            *([say("more", n=len(troubles) - MOST_TROUBLES)] if len(troubles) > MOST_TROUBLES else []),
        ],
        spec_text=yaml.safe_dump(manifest["settings"], sort_keys=False, allow_unicode=True),
    )
    path = folder / PAGE
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def _total(manifest: Mapping[str, Any], part: str, what: str) -> int:
    return sum(int(one[part][what]) for one in manifest["sources"].values())


def _top(manifest: Mapping[str, Any], say: Say) -> dict[str, Any]:
    read = _total(manifest, "read", "documents")
    train, valid = (_total(manifest, split, "documents") for split in ("train", "valid"))
    characters = _total(manifest, "train", "characters")
    dropped = manifest["dropped"]
    n_dropped = sum(one["documents"] for one in dropped.values())
    first = max(dropped, key=lambda reason: dropped[reason]["documents"], default="")
    rate = _total(manifest, "read", "bytes") / 1e6 / max(manifest["seconds"], 0.1)
    blanks = {"kept": f"{train + valid:,}", "read": f"{read:,}", "characters": short_count(characters)}
    return {
        "headline": say("headline", **blanks, sources=len(manifest["sources"])),
        "sentence": say(
            "why", reasons=len(dropped), first=first.replace("_", " "), n=f"{dropped[first]['documents']:,}"
        )
        if dropped
        else say("none_dropped"),
        "command": "from penjing.corpus.corpus import open_corpus\n\n"
        f'for text, source in open_corpus("{manifest["settings"]["out"]}").texts("train"): ...',
        "tiles": [
            (say("kept_tile"), f"{train + valid:,}", percent((train + valid) / max(1, read))),
            (say("dropped_tile"), f"{n_dropped:,}", percent(n_dropped / max(1, read))),
            (say("valid_tile"), f"{valid:,}", say("documents")),
            (say("characters"), short_count(characters), say("train")),
            (say("time"), duration(manifest["seconds"], say), say("rate", rate=f"{rate:.1f}")),
        ],
    }


def _dropped(manifest: Mapping[str, Any], samples: Mapping[str, Any], say: Say) -> Table | None:
    read = _total(manifest, "read", "documents")
    rows: list[tuple[str, ...]] = []
    for reason, one in sorted(manifest["dropped"].items(), key=lambda pair: -pair[1]["documents"]):
        shown: dict[str, str] = next(iter(samples.get(reason, [])), {})
        example = " ".join((shown.get("text") or shown.get("why", "")).split())[:120]
        n = one["documents"]
        rows.append(
            (
                reason.replace("_", " "),
                f"{n:,}",
                percent(n / max(1, read)),
                short_count(one["characters"]),
                example,
            )
        )
    head = (say("reason"), say("documents"), say("share"), say("characters"), say("sample"))
    return Table(head, rows, numbers=False) if rows else None


def _kept(manifest: Mapping[str, Any], say: Say) -> Part:
    rows = []
    for name, one in manifest["sources"].items():
        share = (one["train"]["documents"] + one["valid"]["documents"]) / max(1, one["read"]["documents"])
        rows.append(Bar(name, share, percent(share)))
    title = say("kept_figure")
    return Part(
        title, Markup(bars(rows, title=title, about=", ".join(f"{r.label} {r.note}" for r in rows), high=1.0))
    )


def _sources(manifest: Mapping[str, Any], say: Say) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            name,
            *(
                f"{one[part]['documents']:,}\n{short_count(one[part]['characters'])}"
                for part in ("read", "train", "valid")
            ),
            percent(one["weight"]),
        )
        for name, one in manifest["sources"].items()
    ]
    return Table(tuple(say(key) for key in ("source", "read", "train", "valid", "weight")), rows)


def _rich(manifest: Mapping[str, Any], say: Say) -> Table | None:
    keys = ("vocabulary", "entropy_1", "entropy_3", "packed", "repeated")
    rows: list[tuple[str, ...]] = []
    for name, one in manifest["sources"].items():
        if found := one.get("diversity"):
            numbers = (f"{found['vocabulary']:,}", f"{found['entropy_1']:.2f}", f"{found['entropy_3']:.2f}")
            words = " · ".join(found["words"])
            rows.append((name, *numbers, percent(found["packed"]), percent(found["repeated"]), words))
    return Table(tuple(say(key) for key in ("source", *keys, "topic")), rows, numbers=False) if rows else None


def _counts(counts: Mapping[str, int], what: str, n: str) -> Table | None:
    return Table((what, n), [(name, f"{count:,}") for name, count in counts.items()]) if counts else None
