"""One page that says what a run did: `report.html` in the run's folder.

The page is whole in itself: no script, no outside resource, one style sheet that the page's own policy admits
by its hash, so that text from training rows can do nothing but be read. It is written for a run that
finished, is going on or died. To change it: sentences in `verdict.py`, words in `words.py`, parts in
`sections.py`, figures in `figures.py`, the page in `templates/`.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.files import write_bytes
from penjing.jobs import provenance, sections
from penjing.jobs.reading import Facts, dicts, of, read_facts
from penjing.jobs.verdict import Verdict, honesty, verdict
from penjing.jobs.words import LANGUAGES, speaker

if TYPE_CHECKING:
    from penjing.run import Run

PAGE = "report.html"
TEMPLATES = Path(__file__).with_name("templates")


def report(run: Run | str | Path, *, language: str | None = None) -> Path:
    """Write `report.html` into a run's folder and return its path.

    Args:
        run: the run, or its folder.
        language: `en` or `zh`; the spec's own when None.

    Raises:
        DataError: the folder is not that of a run.
        SpecError: the language is not known.
        CannotWrite: the page could not be written; an older one is untouched.
    """
    folder = Path(run) if isinstance(run, str | os.PathLike) else Path(run.folder)
    facts = read_facts(folder)
    wanted = language or facts.spec.get("language")
    known = wanted if language or wanted in LANGUAGES else "en"
    path = folder / PAGE
    # Lone surrogates can come out of JSON and cannot be written as UTF-8.
    write_bytes(path, page(facts, str(known)).encode("utf-8", "replace"))
    return path


def verdict_of(folder: Path) -> Verdict:
    """What a run comes to, in the words of its report.

    Raises:
        DataError: the folder is not that of a run.
    """
    facts = read_facts(folder)
    language = facts.spec.get("language")
    return verdict(facts, speaker(language if language in LANGUAGES else "en"))


def page(facts: Facts, language: str) -> str:
    """The whole page as text, without a look at the clock: the same folder gives the same page.

    Raises:
        SpecError: the language is not known.
    """
    return rendered("report.html.jinja", language=language, **_view(facts, language))


def rendered(name: str, /, **view: Any) -> str:
    """A template with the style sheet that all pages share, and its hash for the page's own policy."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template(name)
    return template.render(**view, style=Markup(style), style_hash=f"sha256-{digest}")


def _view(facts: Facts, language: str) -> dict[str, Any]:
    """All that the template shows, as plain values."""
    say = speaker(language)
    seen = verdict(facts, say)
    score_part, score_table = sections.scores(facts, say, seen)
    curves, more_curves = sections.learning(facts, say)
    class_part, class_table = sections.per_class(facts, say)
    heat_part, pairs = sections.confusion(facts, say)
    agree_parts, agree_table = sections.agreement(facts, say)
    worst = sections.quotes(of(facts.result, "worst"), say)
    off = "furthest" if any("error" in row for row in dicts(of(facts.result, "worst"))) else "worst"
    repeat, resume, started = provenance.commands(facts)
    return {
        "say": say,
        "name": facts.folder.resolve().name,
        "verdict": seen,
        "error": facts.error,
        "tiles": sections.tiles(facts, say, seen),
        "score_part": score_part,
        "score_table": score_table,
        "curves": curves,
        "more_curves": more_curves,
        "class_part": class_part,
        "class_table": class_table,
        "heat_part": heat_part,
        "pairs": pairs,
        "agree_parts": agree_parts,
        "agree_table": agree_table,
        "worst": worst,
        "worst_title": say(off),
        "worst_lead": say(f"{off}_lead"),
        "honesty": honesty(facts, say),
        "reliability": sections.calibration(facts, say),
        "data_files": provenance.data_files(facts, say),
        "data_sets": provenance.data_sets(facts, say),
        "leaks": provenance.leaks(facts, say),
        "twins": provenance.twins(facts),
        "data_parts": [
            p for p in (provenance.label_counts(facts, say), provenance.length_histogram(facts, say)) if p
        ],
        "data_rest": provenance.data_rest(facts, say),
        "suspects": sections.quotes(of(facts.data, "suspects"), say),
        "how": sections.how(facts, say),
        "cost": provenance.cost(facts, say),
        "about_run": provenance.about_run(facts, say),
        "notes": provenance.notes(facts, say),
        "repeat": repeat,
        "resume": resume,
        "started": started,
        "spec_text": facts.spec_text,
    }
