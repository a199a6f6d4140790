"""The parts of the report: each function turns what a run folder says into plain values and figures for the
template.

A part that has nothing to show gives an empty value, and the template leaves it out.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from penjing.jobs import figures
from penjing.jobs.figures import Bar, Series
from penjing.jobs.reading import Facts, dicts, of
from penjing.jobs.verdict import Verdict, reliability_bins, validation
from penjing.jobs.words import Say, duration, finite, memory, percent, plain, score, short_count, span

MOST_BLOCK = 25  # classes of the heat map
MOST_BARS = 15
MOST_ROWS = 20  # of worst rows, suspects, and any list of which nothing is known
MOST_TEXT = 400  # characters of a quoted row
SCORES = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "ece", "nll", "brier")


@dataclass(frozen=True)
class Table:
    """A plain table; the first column is a heading, the others are numbers where `numbers`."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: bool = True


def tiles(facts: Facts, say: Say, seen: Verdict) -> list[tuple[str, str, str, str]]:
    """(name, value, what stands under it, look) of the few numbers on top."""
    result, name, found = facts.result, seen.name, []
    after, before = of(result, "after", "values", name), of(result, "before", "values", name)
    cost = result.get("cost")
    if finite(after):
        under = f"{say(name)} {span(of(result, 'after', 'intervals', name), name)}"
        found.append((say("tuned"), score(name, after), under, "main"))
    if finite(before):
        gain = (
            say("points_gain", points=f"{100 * (after - before):+.1f}".replace("-", "−"))
            if finite(after)
            else ""
        )
        found.append((say("before"), score(name, before), gain, "before"))
    if finite(of(result, "baseline", "values", name)):
        took = of(result, "baseline", "seconds")
        under = say("fitted_in", time=duration(took, say)) if finite(took) else ""
        found.append((say("baseline"), score(name, of(result, "baseline", "values", name)), under, "cheap"))
    if finite(of(cost, "seconds")):
        steps = of(cost, "steps")
        found.append(
            (
                say("time"),
                duration(of(cost, "seconds"), say),
                say("steps_taken", n=plain(steps)) if finite(steps) else "",
                "",
            )
        )
    if finite(of(cost, "peak_mib")):
        forecast = of(cost, "forecast_mib")
        under = say("forecast", value=memory(forecast)) if finite(forecast) else ""
        found.append((say("memory"), memory(of(cost, "peak_mib")), under, ""))
    return found


def scores(facts: Facts, say: Say, seen: Verdict) -> tuple[Markup, Table | None]:
    """Bars of the leading score, and a table of all scores with their intervals."""
    result, systems = facts.result, ("before", "baseline", "after")
    there = [s for s in systems if isinstance(of(result, s, "values"), dict)]
    if "after" not in there:
        return Markup(""), None
    looks = {"before": ("before", "before"), "baseline": ("baseline", "cheap"), "after": ("tuned", "main")}
    rows = []
    for system in there:
        value, interval = of(result, system, "values", seen.name), of(result, system, "intervals", seen.name)
        if finite(value):
            pair = (interval[0], interval[1]) if span(interval) else None
            rows.append(Bar(say(looks[system][0]), value, score(seen.name, value), pair, looks[system][1]))
    about = ", ".join(f"{row.label} {row.note}" for row in rows)
    title = say("scores_figure", name=say(seen.name), split=say(seen.split))
    figure = figures.bars(rows, title=title, about=about, high=1.0 if seen.name in SCORES[:4] else None)
    names = [n for n in of(result, "after", "values") if finite(of(result, "after", "values", n))]
    names.sort(key=lambda n: SCORES.index(n) if n in SCORES else len(SCORES))
    table = Table(
        (say("score"), *(say(looks[s][0]) for s in there), say("interval")),
        [
            (
                say(n),
                *(score(n, of(result, s, "values", n)) for s in there),
                span(of(result, "after", "intervals", n), n) or "–",
            )
            for n in names
        ],
    )
    return Markup(figure), table


def learning(facts: Facts, say: Say) -> tuple[list[tuple[str, Markup]], list[tuple[str, Markup]]]:
    """(title, figure) of the loss and of the validation score; and those of rates, norms and parts."""
    log = [line for line in facts.log if finite(line.get("step"))]
    main, more = [], []
    loss = _points(log, "loss")
    if loss:
        about = say(
            "loss_about",
            first=plain(loss[0][1]),
            from_step=plain(loss[0][0]),
            last=plain(loss[-1][1]),
            to_step=plain(loss[-1][0]),
        )
        lines = [Series(say("loss_smooth"), figures.smoothed(loss))]
        if len(loss) > 10:
            lines.insert(0, Series(say("loss_raw"), loss, "faint"))
        valid = [
            (float(s["step"]), float(of(s, "values", "nll")))
            for s in facts.scores
            if finite(s.get("step")) and finite(of(s, "values", "nll"))
        ]
        lines += [Series(say("valid_loss"), valid, "dots")] if valid else []
        main.append((say("loss"), _chart(lines, say("loss"), about, say, plain)))
    name, points = validation(facts)
    if points:
        step, best = max(points, key=lambda point: point[1])
        lines = [
            Series(say(name), points, "line", _whiskers(facts, name, points)),
            Series("", points, "dots"),
        ]
        title = say("score_figure", name=say(name))
        about = say("score_about", best=score(name, best), step=plain(step))
        main.append((title, _chart(lines, title, about, say, lambda v: score(name, v), log=False)))
    for key in ("lr", "grad_norm"):
        curve = _points(log, key)
        if curve:
            about = say(
                "curve_about", low=plain(min(y for _, y in curve)), high=plain(max(y for _, y in curve))
            )
            more.append(
                (
                    say(key),
                    _chart(
                        [Series(say(key), curve)],
                        say(key),
                        about,
                        say,
                        plain,
                        log=None if key == "grad_norm" else False,
                    ),
                )
            )
    parts = sorted({k for line in log if isinstance(line.get("parts"), dict) for k in line["parts"]})[:4]
    if len(parts) > 1:
        looks = ("line", "dashed", "faint", "dots")
        series = [
            Series(
                p,
                figures.smoothed(
                    [(float(s["step"]), float(of(s, "parts", p))) for s in log if finite(of(s, "parts", p))]
                ),
                look,
            )
            for p, look in zip(parts, looks, strict=False)
        ]
        more.append((say("parts"), _chart(series, say("parts"), ", ".join(parts), say, plain)))
    return [f for f in main if f[1]], [f for f in more if f[1]]


def per_class(facts: Facts, say: Say) -> tuple[str, Markup, Table | None]:
    """Title and bars of the weakest classes, and the table of all, weakest first."""
    rows = [r for r in dicts(of(facts.result, "after", "tables", "per_class")) if finite(r.get("f1"))]
    if not rows:
        return "", Markup(""), None
    rows.sort(key=lambda r: (r["f1"], -_number(r.get("support"))))
    weak = [r for r in rows if _number(r.get("support")) > 0][:MOST_BARS] or rows[:MOST_BARS]
    title = say("class_figure_all") if len(rows) <= MOST_BARS else say("class_figure", n=len(weak))
    drawn = [
        Bar(
            str(r.get("label")),
            float(r["f1"]),
            f"{percent(r['f1'])} · {say('rows_n', n=plain(r.get('support')))}",
        )
        for r in weak
    ]
    about = say("class_about", label=str(weak[0].get("label")), score=percent(weak[0]["f1"]))
    table = Table(
        tuple(say(k) for k in ("label", "precision", "recall", "f1", "support")),
        [
            (
                str(r.get("label")),
                *(percent(r.get(k)) for k in ("precision", "recall", "f1")),
                plain(r.get("support")),
            )
            for r in rows
        ],
    )
    return title, Markup(figures.bars(drawn, title=title, about=about, high=1.0)), table


def confusion(facts: Facts, say: Say) -> tuple[str, Markup, list[tuple[str, str, str]]]:
    """Title and heat map of the classes with the most errors, and (truth, answer, how many) of the commonest
    pairs."""
    labels, counts = (
        of(facts.result, "after", "tables", "confusion", "labels"),
        of(facts.result, "after", "tables", "confusion", "counts"),
    )
    if not _is_square(labels, counts):
        return "", Markup(""), []
    totals = [sum(row) for row in counts]
    missed = [
        (counts[i][j], i, j)
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts[i][j] > 0
    ]
    missed.sort(key=lambda m: (-m[0], m[1], m[2]))
    pairs = [
        (str(labels[i]), str(labels[j]), say("of_its_rows", count=plain(n), total=plain(totals[i])))
        for n, i, j in missed[:12]
    ]
    errors = [0] * len(labels)
    for n, i, j in missed:
        errors[i] += n
        errors[j] += n
    chosen = sorted(sorted(range(len(labels)), key=lambda i: -errors[i])[:MOST_BLOCK])
    part = len(chosen) < len(labels)
    title = say("heat_figure_part", n=len(chosen)) if part else say("heat_figure")
    drawn = figures.heat_map(
        [str(labels[i]) for i in chosen],
        [[counts[i][j] for j in chosen] for i in chosen],
        title=title,
        about=say("heat_about"),
        rows=say("truth"),
        columns=say("answer"),
    )
    return title, Markup(drawn), pairs


def calibration(facts: Facts, say: Say) -> Markup:
    """The reliability diagram."""
    return Markup(
        figures.reliability(
            reliability_bins(facts),
            title=say("reliability_figure"),
            about=say("reliability_about"),
            x_label=say("confidence"),
            y_label=say("share_right"),
        )
    )


def quotes(rows: Any, say: Say) -> list[dict[str, str]]:
    """Rows quoted with what was given and what the model thinks: text, where, given, other, sure."""
    return [
        {
            "text": _cut(row.get("text")),
            "where": _flat(row.get("where")),
            "given": _flat(row.get("given")) or say("nothing"),
            "other": _flat(row.get("predicted", row.get("likely"))) or say("nothing"),
            "sure": say("sure", score=percent(row.get("confidence", row.get("probability")))),
        }
        for row in dicts(rows)[:MOST_ROWS]
    ]


def data_files(facts: Facts, say: Say) -> Table | None:
    """Source, rows and hash of train, valid and test."""
    rows = [
        (
            say(split),
            _flat(of(found, "source")),
            plain(of(found, "rows")),
            str(of(found, "sha256") or "–")[:12],
        )
        for split in ("train", "valid", "test")
        if isinstance(found := of(facts.lineage, "data", split), dict)
    ]
    return Table(("", say("source"), say("rows"), "sha256"), rows) if rows else None


def label_counts(facts: Facts, say: Say) -> tuple[str, Markup]:
    """Bars of how many rows each label has."""
    found = facts.data.get("labels")
    if isinstance(of(found, "train"), dict):
        found = of(found, "train")
    pairs = [(str(k), v) for k, v in found.items() if finite(v)] if isinstance(found, dict) else []
    pairs += [
        (str(r.get("label")), r.get("count", r.get("rows")))
        for r in dicts(found)
        if finite(r.get("count", r.get("rows")))
    ]
    if not pairs:
        return "", Markup("")
    pairs.sort(key=lambda pair: -pair[1])
    shown = pairs if len(pairs) <= MOST_BARS + 5 else pairs[:MOST_BARS]
    title = (
        say("labels_figure") if shown is pairs else say("labels_figure_part", n=len(shown), total=len(pairs))
    )
    about = say("labels_about", least=plain(pairs[-1][1]), most=plain(pairs[0][1]))
    drawn = figures.bars([Bar(k, float(v), plain(v)) for k, v in shown], title=title, about=about)
    return f"{title}. {about}" if shown is not pairs else title, Markup(drawn)


def length_histogram(facts: Facts, say: Say) -> Markup:
    """Upright bars where data.json has `lengths: {edges: […], counts: […]}`."""
    edges, counts = of(facts.data, "lengths", "edges"), of(facts.data, "lengths", "counts")
    if not (isinstance(edges, list) and isinstance(counts, list) and all(map(finite, [*edges, *counts]))):
        return Markup("")
    title, about = say("lengths_figure"), say("lengths_about")
    return Markup(figures.histogram(edges, counts, title=title, about=about, x_label=say("tokens")))


def data_rest(facts: Facts, say: Say) -> list[tuple[str, str | Table]]:
    """(name, text or table) of everything else in data.json, known to us or not."""
    found: list[tuple[str, str | Table]] = []
    for key, value in facts.data.items():
        if key in ("suspects", "notes") or (key == "labels" and label_counts(facts, say)[1]):
            continue
        if key == "lengths" and isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in ("edges", "counts")}
        if value is not None and value != {} and value != []:
            found.append((say(key), _shown(value)))
    return found


def cost(facts: Facts, say: Say) -> list[tuple[str, str, str]]:
    """(name, measured, forecast) of time, memory and speed."""
    found: Any = facts.result.get("cost")
    rows: list[tuple[str, str, str]] = []
    writers: list[tuple[str, Any, str]] = [
        ("seconds", lambda v: duration(v, say), "forecast_s"),
        ("peak_mib", memory, "forecast_mib"),
        ("steps", plain, ""),
        ("tokens", plain, ""),
        ("tokens_per_s", plain, ""),
        ("rows_per_s", plain, ""),
        ("peak_share", percent, ""),
    ]
    for key, write, forecast in writers:
        if finite(of(found, key)):
            ahead = of(found, forecast) if forecast else None
            rows.append((say(key), write(of(found, key)), write(ahead) if finite(ahead) else ""))
    if of(found, "stopped"):
        rows.append((say("stopped"), _flat(of(found, "stopped")), ""))
    return rows


def about_run(facts: Facts, say: Say) -> list[tuple[str, str]]:
    """(name, value) of base, task, method, device, seed and what else the lineage knows."""
    base, spec = facts.lineage.get("base"), facts.spec
    said = [
        (say("base"), _flat(of(base, "name") or spec.get("base"))),
        (say("parameters"), _parameters(base, say)),
        (say("task"), _choice(spec.get("task"))),
        (say("method"), _choice(spec.get("method"))),
        (say("techniques"), ", ".join(map(_choice, spec.get("techniques") or []))),
        (say("device"), _flat(facts.lineage.get("device"))),
        (say("precision_name"), _flat(facts.lineage.get("precision"))),
        (say("threads"), _flat(facts.lineage.get("threads"))),
        (say("seed"), _flat(facts.lineage.get("seed", spec.get("seed")))),
        (say("started"), _flat(facts.lineage.get("started"))),
        (say("parent"), _flat(facts.lineage.get("parent"))),
    ]
    versions = facts.lineage.get("versions")
    if isinstance(versions, dict):
        said.append((say("versions"), ", ".join(f"{k} {v}" for k, v in versions.items())))
    return [(name, value) for name, value in said if value]


def commands(facts: Facts) -> tuple[str, str, str]:
    """The command that repeats the run, the one that resumes it, and the one it was started by (or
    nothing)."""
    started = facts.lineage.get("command")
    said = shlex.join(map(str, started)) if isinstance(started, list) else _flat(started)
    repeat = f"penjing tune {shlex.quote(str(facts.folder / 'spec.yaml'))}" if facts.spec_text else said
    return repeat, f"penjing tune --resume {shlex.quote(str(facts.folder))}", said


def notes(facts: Facts, say: Say) -> list[str]:
    """What the run, the data and this reading have to say besides."""
    places = [facts.data.get("notes"), facts.result.get("notes")]
    found = [_flat(note) for place in places if isinstance(place, list) for note in place]
    for line in [line for line in facts.log if line.get("notes")][-10:]:
        found.append(f"{say('step')} {plain(line.get('step'))}: {_flat(line['notes'])}")
    return found + [say("damaged", file=file, n=n) for file, n in facts.damaged]


def _points(log: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[key])) for line in log if finite(line.get(key))]


def _whiskers(facts: Facts, name: str, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    pairs = {s.get("step"): of(s, "intervals", name) for s in facts.scores}
    found = [pairs.get(step) for step, _ in points]
    return [(float(p[0]), float(p[1])) for p in found if p] if all(span(p) for p in found) else []


def _chart(
    series: list[Series], title: str, about: str, say: Say, write: figures.Write, *, log: bool | None = None
) -> Markup:
    return Markup(
        figures.line_chart(series, title=title, about=about, x_label=say("step"), write=write, log=log)
    )


def _is_square(labels: Any, counts: Any) -> bool:
    return (
        isinstance(labels, list)
        and isinstance(counts, list)
        and len(labels) == len(counts) > 0
        and all(isinstance(row, list) and len(row) == len(labels) and all(map(finite, row)) for row in counts)
    )


def _parameters(base: Any, say: Say) -> str:
    total, trainable = of(base, "parameters"), of(base, "trainable")
    if finite(total) and finite(trainable):
        return say("trained_of", n=short_count(trainable), total=short_count(total))
    return short_count(total) if finite(total) else ""


def _choice(value: Any) -> str:
    """`lora (rank 8)` for {lora: {rank: 8}}."""
    if isinstance(value, dict) and len(value) == 1:
        name, settings = next(iter(value.items()))
        inner = (
            ", ".join(f"{k} {_flat(v)}" for k, v in settings.items()) if isinstance(settings, dict) else ""
        )
        return f"{name} ({inner})" if inner else str(name)
    return _flat(value)


def _shown(value: Any) -> str | Table:
    """Any JSON value as a line of text or a small table."""
    if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
        inner = {str(k): v if isinstance(v, dict) else {"": v} for k, v in value.items()}
        columns = [*dict.fromkeys(str(k) for v in inner.values() for k in v)]
        return Table(
            ("", *columns),
            [(k, *(_flat(v.get(c)) for c in columns)) for k, v in [*inner.items()][:MOST_ROWS]],
        )
    if isinstance(value, list) and dicts(value):
        columns = [*dict.fromkeys(str(k) for v in dicts(value) for k in v)]
        return Table(
            tuple(columns), [tuple(_cut(v.get(c)) for c in columns) for v in dicts(value)[:MOST_ROWS]], False
        )
    return _flat(value)


def _flat(value: Any) -> str:
    """Any JSON value as one line."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return " · ".join(f"{k} {_flat(v)}" for k, v in [*value.items()][: 2 * MOST_ROWS])
    if isinstance(value, list | tuple):
        more = f", … ({len(value):,})" if len(value) > 2 * MOST_ROWS else ""
        return ", ".join(_flat(v) for v in value[: 2 * MOST_ROWS]) + more
    if finite(value) and not isinstance(value, int):
        return plain(value)
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 9999
        else str(value)
    )


def _cut(value: Any) -> str:
    text = (
        value
        if isinstance(value, str)
        else _flat(value)
        if not isinstance(value, dict)
        else json.dumps(value, ensure_ascii=False)
    )
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


def _number(value: Any) -> float:
    return float(value) if finite(value) else 0.0
