"""The parts of the report that say what went into a run: rows, base, machine, cost, and the command that
repeats it."""

from __future__ import annotations

import shlex
from typing import Any

from markupsafe import Markup

from penjing.jobs import figures
from penjing.jobs.figures import Bar
from penjing.jobs.numbers import duration, finite, memory, percent, plain, short_count
from penjing.jobs.reading import Facts, dicts, of
from penjing.jobs.sections import MOST_BARS, MOST_ROWS, Part, Table, cut, flat
from penjing.jobs.words import Say, capital
from penjing.places import typed

SPLITS = ("train", "valid", "test")
SHOWN = ("rows", "sets", "leaks", "suspects", "notes")  # of data.json by name; all else is shown as it stands
NAMED = ("rows", "labels", "lengths", "duplicates", "leaks")  # keys of data.json that have words of their own
QUOTED = ("examples", "near_examples")


def data_files(facts: Facts, say: Say) -> Table | None:
    """Source, rows and hash of train, valid and test."""
    rows: list[tuple[str, ...]] = []
    for split in SPLITS:
        found = of(facts.lineage, "data", split)
        if isinstance(found, dict):
            sha = flat(found.get("sha256"))[:8] or "–"
            rows.append((say(split), plain(found.get("rows")), sha, flat(found.get("source")) or "–"))
    return Table(("", say("rows"), "SHA-256", say("source")), rows, numbers=False) if rows else None


def data_sets(facts: Facts, say: Say) -> Table | None:
    """What the rows of each set are like: labels, lengths, repeats, conflicts."""
    sets = {name: about for name, about in _pairs(facts.data.get("sets")) if isinstance(about, dict)}
    measures = (
        ("rows", lambda s: plain(s.get("rows"))),
        ("classes", lambda s: plain(of(s, "labels", "n"))),
        ("imbalance", lambda s: plain(of(s, "labels", "imbalance"))),
        ("words_a_row", lambda s: _lengths(s.get("words"))),
        ("tokens_a_row", lambda s: _lengths(s.get("tokens"))),
        ("exact", lambda s: plain(of(s, "duplicates", "exact"))),
        ("near", lambda s: plain(of(s, "duplicates", "near"))),
        ("conflicts", lambda s: plain(of(s, "conflicts", "rows"))),
        ("blank", lambda s: plain(of(s, "blank", "n"))),
        ("long", lambda s: plain(of(s, "long", "n"))),
    )
    rows: list[tuple[str, ...]] = [
        (capital(say(name)), *map(write, sets.values())) for name, write in measures
    ]
    rows = [row for row in rows if any(cell != "–" for cell in row[1:])]
    head = ("", *(say(name) if name in SPLITS else name for name in sets))
    return Table(head, rows) if rows and sets else None


def leaks(facts: Facts, say: Say) -> list[str]:
    """A sentence for each pair of sets that share rows; one that says so where none do."""
    found = [leak for leak in dicts(facts.data.get("leaks")) if finite(leak.get("exact"))]
    said = [
        say(
            "leak",
            to=_split(leak.get("to"), say),
            source=_split(leak.get("from"), say),
            exact=plain(leak.get("exact")),
            near=plain(leak.get("near")),
        )
        for leak in found
        if leak.get("exact") or leak.get("near")
    ]
    return said or ([say("no_leaks")] if found else [])


def twins(facts: Facts) -> list[list[tuple[str, str, str]]]:
    """Groups of rows that repeat, contradict or leak: (where, text, label) of each."""
    places = [
        of(about, kind) for _, about in _pairs(facts.data.get("sets")) for kind in ("conflicts", "duplicates")
    ]
    places += dicts(facts.data.get("leaks"))
    found = []
    for place in places:
        for example in [row for key in QUOTED for row in dicts(of(place, key))]:
            rows = dicts(example.get("rows")) or dicts([example.get("also"), example.get("in")])
            found.append([(flat(r.get("where")), cut(r.get("text")), flat(r.get("label"))) for r in rows])
    return [group for group in found if group][:MOST_ROWS]


def label_counts(facts: Facts, say: Say) -> Part | None:
    """Bars of how many train rows each label has."""
    found = of(facts.data, "sets", "train", "labels", "counts") or facts.data.get("labels")
    counts = [(k, float(v)) for k, v in _pairs(found) if finite(v)]
    if not counts:
        return None
    counts.sort(key=lambda pair: -pair[1])
    shown = counts if len(counts) <= MOST_BARS + 5 else counts[:MOST_BARS]
    part = say("labels_figure_part", n=len(shown), total=len(counts))
    title = say("labels_figure") if shown is counts else part
    about = say("labels_about", least=plain(counts[-1][1]), most=plain(counts[0][1]))
    drawn = figures.bars([Bar(k, v, plain(v)) for k, v in shown], title=title, about=about)
    return Part(title, Markup(drawn), about)


def length_histogram(facts: Facts, say: Say) -> Part | None:
    """Upright bars where data.json has `lengths: {edges: […], counts: […]}`."""
    edges, counts = of(facts.data, "lengths", "edges"), of(facts.data, "lengths", "counts")
    if not (isinstance(edges, list) and isinstance(counts, list) and all(map(finite, [*edges, *counts]))):
        return None
    title, about = say("lengths_figure"), say("lengths_about")
    drawn = figures.histogram(edges, counts, title=title, about=about, x_label=say("tokens"))
    return Part(title, Markup(drawn)) if drawn else None


def data_rest(facts: Facts, say: Say) -> list[tuple[str, str | Table]]:
    """(name, text or table) of what else data.json holds."""
    found: list[tuple[str, str | Table]] = []
    for key, value in facts.data.items():
        hidden = SHOWN if "sets" in facts.data else ("suspects", "notes")
        if key in hidden or (key == "labels" and label_counts(facts, say)):
            continue
        if key == "lengths" and isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in ("edges", "counts")}
        if value is not None and value not in ({}, []):
            found.append((say(key) if key in NAMED else key, _shown(value)))
    return found


def cost(facts: Facts, say: Say) -> list[tuple[str, str, str]]:
    """(name, measured, forecast) of time, memory and speed."""
    found = facts.result.get("cost")
    seconds, mib, ahead_s, ahead_mib = (
        of(found, k) for k in ("seconds", "peak_mib", "forecast_s", "forecast_mib")
    )
    rows = [
        (say("seconds"), duration(seconds, say), duration(ahead_s, say) if finite(ahead_s) else ""),
        (say("peak_mib"), memory(mib), memory(ahead_mib) if finite(ahead_mib) else ""),
        *((say(k), plain(of(found, k)), "") for k in ("steps", "tokens", "tokens_per_s", "rows_per_s")),
        (say("peak_share"), percent(of(found, "peak_share")), ""),
        (say("stopped"), flat(of(found, "stopped")) or "–", ""),
    ]
    return [(capital(name), seen, ahead) for name, seen, ahead in rows if seen != "–"]


def about_run(facts: Facts, say: Say) -> list[tuple[str, str]]:
    """(name, value) of base, task, method, device, seed and what else the lineage knows."""
    lineage, spec = facts.lineage, facts.spec
    base, techniques = lineage.get("base"), spec.get("techniques")
    said = [
        (say("base"), flat(of(base, "name") or spec.get("base"))),
        (say("parameters"), _parameters(base, say)),
        (say("task"), _choice(spec.get("task"))),
        (say("method"), _choice(spec.get("method"))),
        (say("techniques"), ", ".join(map(_choice, techniques)) if isinstance(techniques, list) else ""),
        (say("device"), flat(lineage.get("device"))),
        (say("precision_name"), flat(lineage.get("precision"))),
        (say("threads"), flat(lineage.get("threads"))),
        (say("seed"), flat(lineage.get("seed", spec.get("seed")))),
        (say("started"), flat(lineage.get("started"))),
        (say("parent"), flat(lineage.get("parent"))),
        (say("versions"), ", ".join(f"{name} {flat(v)}" for name, v in _pairs(lineage.get("versions")))),
    ]
    return [(name, value) for name, value in said if value]


def commands(facts: Facts) -> tuple[str, str, str]:
    """The command that repeats the run, the one that resumes it, and the one it was started by (or
    nothing)."""
    started = facts.lineage.get("command")
    said = shlex.join(map(str, started)) if isinstance(started, list) else flat(started)
    repeat = f"penjing tune {typed(facts.folder / 'spec.yaml')}" if facts.spec_text else said
    if facts.spec_text and facts.spec.get("name") is not None:  # its own name is taken, by this run
        repeat += f" --name {shlex.quote(flat(facts.spec['name']) + '-again')}"
    return repeat, f"penjing tune --resume {typed(facts.folder)}", said


def notes(facts: Facts, say: Say) -> list[str]:
    """What the run, the data and this reading have to say besides, each once."""
    places = (facts.data.get("notes"), facts.result.get("notes"))
    found = [flat(note) for place in places if isinstance(place, list) for note in place]
    for line in [line for line in facts.log if line.get("notes")][-10:]:
        found.append(f"{say('step')} {plain(line.get('step'))}: {flat(line['notes'])}")
    return [*dict.fromkeys(found)] + [say("damaged", file=file, n=n) for file, n in facts.damaged]


def _pairs(value: Any) -> list[tuple[str, Any]]:
    return [(str(k), v) for k, v in value.items()] if isinstance(value, dict) else []


def _split(name: Any, say: Say) -> str:
    return say(name) if name in SPLITS else flat(name)


def _lengths(quantiles: Any) -> str:
    values = [of(quantiles, key) for key in ("p50", "p95", "max")]
    return "/".join(map(plain, values)) if all(map(finite, values)) else "–"


def _parameters(base: Any, say: Say) -> str:
    total, trainable = of(base, "parameters"), of(base, "trainable")
    if finite(total) and finite(trainable):
        return say("trained_of", n=short_count(trainable), total=short_count(total))
    return short_count(total) if finite(total) else ""


def _choice(value: Any) -> str:
    """`lora (rank 8)` for {lora: {rank: 8}}."""
    if isinstance(value, dict) and len(value) == 1:
        name, settings = next(iter(value.items()))
        inner = ", ".join(f"{k} {flat(v)}" for k, v in _pairs(settings))
        return f"{name} ({inner})" if inner else str(name)
    return flat(value)


def _shown(value: Any) -> str | Table:
    """Any JSON value as a line of text or a small table."""
    if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
        inner = {k: v if isinstance(v, dict) else {"": v} for k, v in _pairs(value)[:MOST_ROWS]}
        columns = [*dict.fromkeys(k for v in inner.values() for k in v)][:MOST_ROWS]
        head = ("", *map(str, columns))
        return Table(head, [(k, *(cut(v.get(c)) for c in columns)) for k, v in inner.items()])
    if dicts(value):
        columns = [*dict.fromkeys(k for v in dicts(value)[:MOST_ROWS] for k in v)][:MOST_ROWS]
        rows = [tuple(cut(v.get(c)) for c in columns) for v in dicts(value)[:MOST_ROWS]]
        return Table(tuple(map(str, columns)), rows, numbers=False)
    return cut(value)
