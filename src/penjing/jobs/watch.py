"""Whether what a model is asked now is like what it was proved on, and whether its answers still hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.bundle import Bundle
from penjing.data.parts import rows_of
from penjing.data.tokenize import tokenize
from penjing.drift.vectors import farthest
from penjing.drift.verdict import ALPHA, FEWEST, LEAST, LOOKS, Check, Seen, Verdict, compare, refuse_levels
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs.evaluate import opened
from penjing.jobs.rows_for import rows_for
from penjing.jobs.seen import Reference, fitted, measure, read_reference, rightly, watchable
from penjing.plural import counted
from penjing.records import Rows
from penjing.serve import registry
from penjing.serve.databases import shown
from penjing.serve.traffic import Kept, asked_of
from penjing.serve.traffic import opened as opened_traffic

LAST = 500
SHOWN = 5  # texts that are farthest from all that the reference holds
TITLES = {
    "vectors": "what texts are about",
    "lengths": "tokens a text",
    "unknown": "tokens the tokenizer does not have",
    "unseen": "tokens that no train row had",
    "language": "languages",
    "answers": "answers",
    "confidence": "confidence",
    "quality": "right answers, of rows with feedback",
}


@dataclass(frozen=True)
class Watched:
    """A look. verdict: None where there were too few rows to say anything. farthest: texts with no neighbour
    in the reference, as they were kept. reference, new: what was compared, for the pictures."""

    model: str
    bundle: str
    at: float
    verdict: Verdict | None
    farthest: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    reference: Seen
    new: Seen

    @property
    def moved(self) -> bool:
        """Whether anything moved."""
        return self.verdict is not None and self.verdict.moved

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        if self.verdict is None:
            return f"{self.model}: too few rows to say anything ({len(self.new)})"
        if not self.moved:
            return f"{self.model}: nothing moved in {self.verdict.n_new} rows"
        return f"{self.model} moved: {'; '.join(said(c) for c in self.verdict.checks if c.moved)}"

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        verdict = self.verdict
        checks = [] if verdict is None else [asdict(check) for check in verdict.checks]
        return {
            "model": self.model,
            "bundle": self.bundle,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.at)),
            "verdict": "too few" if verdict is None else "moved" if verdict.moved else "still",
            "sentence": self.sentence,
            "rows": len(self.new),
            "reference_rows": len(self.reference),
            "level": None if verdict is None else verdict.level,
            "least": None if verdict is None else verdict.least,
            "checks": checks,
            "farthest": list(self.farthest),
            "notes": list(self.notes),
        }


def said(check: Check) -> str:
    """A check in words: what moved, from where to where."""
    facts, title = check.facts, TITLES[check.name]
    if "most" in facts:
        first = facts["most"][0] if facts["most"] else {"name": "-", "was": 1.0, "is": 1.0}
        return f"{title} ({first['name']} {first['was']:.1%} → {first['is']:.1%})"
    if check.name == "vectors":
        return f"{title} (distance {check.effect:.2f})"
    form = ".1f" if check.name == "lengths" else ".1%"
    return f"{title} ({facts['was']:{form}} → {facts['is']:{form}})"


def watch(
    model: Bundle | str | Path,
    *,
    traffic: str | None = None,
    data: str | Path | None = None,
    reference: str | Path | None = None,
    last: int = LAST,
    alpha: float = ALPHA,
    looks: int = LOOKS,
    least: float = LEAST,
    seed: int = 0,
    base: str | None = None,
    trust: Sequence[str] = (),
    **reading: Any,
) -> Watched:
    """Compare the newest rows of a store of traffic, or of a file, with those that a bundle was proved on.

    model: a run, a bundle, or a model's folder in a registry, whose live version is meant. reference: rows to
    compare with in place of those kept with the bundle. last: rows looked at, the newest.
    alpha, looks, least: as in `drift.verdict.compare`. `reading` says how files are read (text, encoding, …).

    Raises:
        SpecError: both or neither of traffic and data. NotSupported: the bundle keeps no reference, reads no
        texts, or there is no store. DataError: fewer than 50 rows of reference.
    """
    if (traffic is None) == (data is None):
        raise SpecError(
            "One thing to look at was wanted: a store of traffic (`--traffic traffic.db`) or a file of rows "
            f"(`--data new.csv`); {'neither' if data is None else 'both'} is given. Give one."
        )
    if last < 1:
        raise SpecError(f"`last` must be at least 1; it is {last}. {LAST} is usual.")
    refuse_levels(alpha=alpha, looks=looks, least=least)
    name, folder = ("", model) if isinstance(model, Bundle) else live_of(Path(model))
    bundle = opened(folder, base=base, trust=trust)
    if not watchable(bundle):
        raise NotSupported(
            f"{bundle!r} was to be watched; it reads no rows of texts. Watched are bundles that do: "
            "classify, tag, pair and the like."
        )
    known = _reference(bundle, reference, reading)
    if len(known.seen) < FEWEST:
        raise DataError(
            f"At least {FEWEST} rows were wanted to compare with; {bundle!r} was proved on "
            f"{len(known.seen)}. Give more rows like those it was trained for: `--reference rows.csv`."
        )
    notes: list[str] = []
    if traffic is not None:
        whose = name, bundle.folder.name if name else None
        texts, new, when = _of_traffic(bundle, known, traffic, whose, last, notes)
    else:
        texts, new, when = _of_file(bundle, known, str(data), last, notes, reading)
    verdict = None
    if len(new) >= FEWEST:
        verdict = compare(known.seen, new, alpha=alpha, looks=looks, least=least, seed=seed)
    far = _farthest(known.seen, new, texts) if verdict and verdict.moved else ()
    called = name or _called(bundle.folder)
    return Watched(called, str(bundle.folder), when, verdict, far, tuple(notes), known.seen, new)


def _called(folder: Path) -> str:
    """The name of a bundle's folder; where that is a run's `best`, the run's."""
    whole = folder.resolve()
    return whole.parent.name if whole.name == "best" else whole.name


def live_of(folder: Path) -> tuple[str, Path]:
    """Name and live version's folder of a model in a registry; of any other folder no name, and itself.

    Raises:
        Unknown: no version is live.
    """
    if (folder / "route.json").is_file():
        version, _ = registry.find(folder.parent, folder.name)
        return folder.name, version.folder
    return "", folder


def _reference(bundle: Bundle, given: str | Path | None, reading: dict[str, Any]) -> Reference:
    if given is None:
        return read_reference(bundle)
    rows = rows_for(bundle, str(given), labelled=False, **reading)
    if bundle.card.get("reference", {}).get("sample"):
        kept = read_reference(bundle)
        return Reference(
            kept.axes, kept.known, measure(bundle, rows, kept.axes, known=kept.known, labelled=False)
        )
    axes = None
    if not bundle.task.whole:  # components of every other row, and the others are the reference
        axes = fitted(bundle, rows.take(np.arange(0, len(rows), 2)))
        rows = rows.take(np.arange(1, len(rows), 2))
    return Reference(axes, None, measure(bundle, rows, axes, labelled=False))


def _of_file(
    bundle: Bundle, known: Reference, data: str, last: int, notes: list[str], reading: dict[str, Any]
) -> tuple[list[str], Seen, float]:
    rows = rows_for(bundle, data, labelled=False, **reading)
    notes += rows.notes
    rows = _readable(bundle, rows.take(np.arange(max(0, len(rows) - last), len(rows))), notes)
    seen = measure(bundle, rows, known.axes, known=known.known, labelled=False)
    return rows.texts, seen, time.time()


def _of_traffic(
    bundle: Bundle,
    known: Reference,
    url: str,
    whose: tuple[str, str | None],
    last: int,
    notes: list[str],
) -> tuple[list[str], Seen, float]:
    """What was asked lately of a model (name and live version), and what was said of the version's answers.

    Another version's answers say nothing of this one, which is asked what that was asked.
    """
    (name, version), place = whose, shown(url)
    with opened_traffic(url) as store:
        kept = store.rows(model=name or None, last=last)
        labelled = store.rows(model=name or None, last=last, labelled=True)
    if not kept:
        of = f"requests to `{name}`" if name else "requests"
        raise DataError(
            f"{of} were wanted in {place}; it keeps none yet. Look again when the model was asked, or check "
            "the name: the folder's name is the model's."
        )
    models = sorted({one.model for one in kept})
    if len(models) > 1:
        raise DataError(
            f"Requests to one model were wanted in {place}; it keeps those to {', '.join(models)}. Name one "
            "by its folder in the registry, such as `penjing watch serving/NAME`."
        )
    if version is not None:
        labelled = [one for one in labelled if one.version == version]
    places: list[int] = []
    rows = (bundle.task.ask or rows_of)([asked_of(one) for one in kept])
    there = _readable(bundle, rows, notes, places)
    kept = [kept[i] for i in places]
    others = sum(version not in (None, one.version) for one in kept)
    if others:
        notes.append(f"other versions answered {counted(others, 'row')}: version {version} is asked now")
    said_then = None if others else [one.answer for one in kept]
    seen = measure(bundle, there, known.axes, known=known.known, answers=said_then, labelled=False)
    right = None
    if labelled := _told(bundle, labelled, notes):
        right = rightly([one.answer for one in labelled], [one.truth for one in labelled])
        notes.append(f"{counted(len(labelled), 'row has', 'rows have')} feedback")
    return there.texts, Seen(**{**vars(seen), "right": right}), kept[-1].at if kept else time.time()


def _told(bundle: Bundle, labelled: list[Kept], notes: list[str]) -> list[Kept]:
    """Rows whose feedback has the form in which the task answers, as `update` wants it."""
    teach, there, bad = bundle.task.teach, [], []
    for one in labelled:
        try:
            if teach is not None:
                asked = teach.asked((bundle.task.ask or rows_of)([asked_of(one)]))[0]
                teach.row(asked, one.truth, bundle.labels)
            there.append(one)
        except DataError as error:
            bad.append(f"{one.id}: {error}")
    if bad:
        are = counted(len(bad), "row of feedback", "rows of feedback")
        notes.append(f"{are} cannot be compared and left out, such as {bad[0]}")
    return there


def _readable(bundle: Bundle, rows: Rows, notes: list[str], places: list[int] | None = None) -> Rows:
    """The rows of which the tokenizer makes a token; the others are counted in the notes."""
    lengths = tokenize(
        bundle.tokenizer, rows.texts, max_length=bundle.card["max_length"], cache=False
    ).lengths
    there = np.flatnonzero((lengths > 0) & np.array([bool(text.strip()) for text in rows.texts], dtype=bool))
    if len(there) < len(rows):
        notes.append(f"{counted(len(rows) - len(there), 'row has', 'rows have')} no text; left out")
    if places is not None:
        places += there.tolist()
    return rows.take(there)


def _farthest(reference: Seen, new: Seen, texts: Sequence[str]) -> tuple[dict[str, Any], ...]:
    if reference.vectors is None or new.vectors is None:
        return ()
    order = farthest(reference.vectors, new.vectors, SHOWN)
    names = new.answers if new.answers is not None and len(new.answers) == len(texts) else None
    return tuple({"text": texts[i], "answer": None if names is None else names[i]} for i in order)
