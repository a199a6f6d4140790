"""The parts of the report that show scores, learning and mistakes, as plain values and figures for the
template.

Each function takes what a run folder says; a part that has nothing to show gives an empty value, and the
template leaves it out. Where data, base and machine came from is in `provenance.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from penjing.jobs import figures
from penjing.jobs.figures import Bar, Series
from penjing.jobs.numbers import IN_PERCENT, duration, finite, gain, memory, percent, plain, score, span, tick
from penjing.jobs.reading import Facts, dicts, of
from penjing.jobs.scatter import agreement as agreement_figure
from penjing.jobs.verdict import Verdict, best_of, reliability_bins, validation
from penjing.jobs.words import Say, capital

MOST_BLOCK = 25  # classes of the heat map
MOST_BARS = 15
MOST_PAIRS = 12
MOST_PARTS = 4  # figures of numbers
MOST_ROWS = 20  # quoted of worst rows, suspects, and any list of which nothing is known
MOST_TEXT = 400  # characters of a quoted row
SCORES = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "ece", "nll", "brier")
SYSTEMS = {  # word and look of each
    "after": ("tuned", "main"),
    "baseline": ("baseline", "cheap"),
    "before": ("before", "before"),
}


@dataclass(frozen=True)
class Table:
    """A plain table; the first column is a heading. A cell's second line is set small."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: bool = True  # all but the first column stand to the right


@dataclass(frozen=True)
class Part:
    """A figure and the words over it."""

    title: str
    figure: Markup
    lead: str = ""
    wide: bool = False  # stands alone on its line


def tiles(facts: Facts, say: Say, seen: Verdict) -> list[tuple[str, str, str, str]]:
    """(name, value, what stands under it, look) of the few numbers on top."""
    result, name, found = facts.result, seen.name, []
    after, before, cheap = (of(result, system, "values", name) for system in ("after", "before", "baseline"))
    if finite(after):
        under = f"{say(name)} {span(of(result, 'after', 'intervals', name), name)}"
        found.append((say("tuned"), score(name, after), under, "main"))
    if finite(cheap):
        took = of(result, "baseline", "seconds")
        under = say("fitted_in", time=duration(took, say)) if finite(took) else ""
        found.append((say("baseline"), score(name, cheap), under, "cheap"))
    if finite(before):
        key = "points_gain" if name in IN_PERCENT else "plain_gain"
        more = say(key, points=gain(name, after - before, signed=True)) if finite(after) else ""
        how_before = flat(of(result, "before", "how"))
        under = say(how_before) if how_before else more
        found.append((say("before"), score(name, before), under, "before"))
    seconds, steps = of(result, "cost", "seconds"), of(result, "cost", "steps")
    if finite(seconds):
        under = say("steps_taken", n=plain(steps)) if finite(steps) else ""
        found.append((say("time"), duration(seconds, say), under, ""))
    peak, forecast = of(result, "cost", "peak_mib"), of(result, "cost", "forecast_mib")
    if finite(peak):
        under = say("forecast", value=memory(forecast)) if finite(forecast) else ""
        found.append((say("memory"), memory(peak), under, ""))
    return found


def scores(facts: Facts, say: Say, seen: Verdict) -> tuple[Part | None, Table | None]:
    """Bars of the leading score, and a table of all scores with the tuned model's intervals."""
    there = [s for s in SYSTEMS if isinstance(of(facts.result, s, "values"), dict)]
    if "after" not in there:
        return None, None
    rows = []
    for system in there:
        word, look = SYSTEMS[system]
        value, interval = (of(facts.result, system, kind, seen.name) for kind in ("values", "intervals"))
        if finite(value):
            pair = (float(interval[0]), float(interval[1])) if span(interval) else None
            rows.append(Bar(say(word), float(value), score(seen.name, value), pair, look))
    title = say("scores_figure", name=say(seen.name), split=say(seen.split))
    about = ", ".join(f"{row.label} {row.note}" for row in rows)
    figure = figures.bars(rows, title=title, about=about, high=1.0 if seen.name in SCORES[:4] else None)
    after = facts.result["after"]
    names = [n for n in after["values"] if finite(after["values"][n])]
    names.sort(key=lambda n: SCORES.index(n) if n in SCORES else len(SCORES))
    lines: list[tuple[str, ...]] = []
    for name in names:
        cells = [score(name, of(facts.result, system, "values", name)) for system in there]
        cells[0] += f"\n{span(of(after, 'intervals', name), name)}"
        lines.append((capital(say(name)), *cells))
    return Part(title, Markup(figure)), Table((say("score"), *(say(SYSTEMS[s][0]) for s in there)), lines)


def learning(facts: Facts, say: Say) -> tuple[list[Part], list[Part]]:
    """The loss and the validation score; and rates, norms and parts of the loss."""
    log = [line for line in facts.log if finite(line.get("step"))]
    main = [_loss(facts, log, say), _validation(facts, say)]
    more = [_curve(log, key, say, log_axis) for key, log_axis in (("lr", False), ("grad_norm", None))]
    names = sorted({k for line in log if isinstance(line.get("parts"), dict) for k in line["parts"]})[:4]
    if len(names) > 1:
        looks = zip(names, ("line", "dashed", "faint", "dots"), strict=False)
        series = [Series(n, figures.smoothed(_points(log, "parts", n)), look) for n, look in looks]
        more.append(_chart(series, say("parts"), ", ".join(names), say))
    return [part for part in main if part.figure], [part for part in more if part.figure]


def per_class(facts: Facts, say: Say) -> tuple[Part | None, Table | None]:
    """Bars of the weakest classes, and the table of all, weakest first; how many of a class are found is not
    known where no row has it, and such come last."""
    rows = [r for r in dicts(of(facts.result, "after", "tables", "per_class")) if finite(r.get("f1"))]
    if not rows:
        return None, None
    unit = counted_in(facts)
    rows.sort(
        key=lambda r: (r.get("support") == 0, r["f1"], -(r["support"] if finite(r.get("support")) else 0))
    )
    weak = ([r for r in rows if finite(r.get("support")) and r["support"] > 0] or rows)[:MOST_BARS]
    title = say("class_figure", n=len(weak)) if len(rows) > MOST_BARS else say("class_figure_all")
    drawn = [
        Bar(
            flat(r.get("label")),
            float(r["f1"]),
            f"{percent(r['f1'])} · {say(f'{unit}_n', n=plain(r.get('support')))}",
        )
        for r in weak
    ]
    about = say("class_about", label=drawn[0].label, score=percent(weak[0]["f1"]))
    shares = ("precision", "recall", "f1")
    table = Table(
        tuple(say(k) for k in ("label", *shares[:2], "class_f1", "support" if unit == "rows" else unit)),
        [
            (
                flat(r.get("label")),
                *(percent(r.get(k) if r.get("support") != 0 or k == "precision" else None) for k in shares),
                plain(r.get("support")),
            )
            for r in rows
        ],
    )
    return Part(title, Markup(figures.bars(drawn, title=title, about=about, high=1.0))), table


def counted_in(facts: Facts) -> str:
    """What classes are counted in: rows, or entities."""
    return "entities" if facts.result.get("task") == "tag" else "rows"


def how(facts: Facts, say: Say) -> str:
    """How the numbers of this task are made."""
    key = f"how_{facts.result.get('task')}"
    return said if (said := say(key)) != key else say("how_text")


def confusion(facts: Facts, say: Say) -> tuple[Part | None, list[tuple[str, str, str]]]:
    """The heat map of the classes with the most errors, and (truth, answer, how many) of the commonest
    pairs."""
    table = of(facts.result, "after", "tables", "confusion")
    labels, counts = of(table, "labels"), of(table, "counts")
    if not _is_square(labels, counts):
        return None, []
    names, n = [flat(label) for label in labels], len(labels)
    missed = [(counts[i][j], i, j) for i in range(n) for j in range(n) if i != j and counts[i][j] > 0]
    missed.sort(key=lambda m: (-m[0], m[1], m[2]))
    unit = counted_in(facts)
    pairs = [
        (
            names[i],
            names[j],
            say(f"of_its_{unit}", count=plain(count), total=plain(sum(counts[i]))),
        )
        for count, i, j in missed[:MOST_PAIRS]
    ]
    errors = [0] * n
    for count, i, j in missed:
        errors[i] += count
        errors[j] += count
    chosen = sorted(sorted(range(n), key=lambda i: -errors[i])[:MOST_BLOCK])
    title = say("heat_figure") if len(chosen) == n else say("heat_figure_part", n=len(chosen))
    block = [[counts[i][j] for j in chosen] for i in chosen]
    about = "heat_about" if unit == "rows" else f"heat_about_{unit}"
    lead, truth, answer = (say(key) for key in (about, "truth", "answer"))
    drawn = figures.heat_map(
        [names[i] for i in chosen], block, title=title, about=lead, rows=truth, columns=answer
    )
    return Part(title, Markup(drawn), lead, wide=len(chosen) > figures.NARROW), pairs


def calibration(facts: Facts, say: Say) -> Part | None:
    """The reliability diagram."""
    title, lead, bins = say("reliability_figure"), say("reliability_about"), reliability_bins(facts)
    x_label, y_label = say("confidence"), say("share_right")
    drawn = figures.reliability(bins, title=title, about=lead, x_label=x_label, y_label=y_label)
    return Part(title, Markup(drawn), lead) if drawn else None


def quotes(rows: Any, say: Say) -> list[dict[str, str]]:
    """Rows quoted with what was given and what the model thinks: text, where, given, other, sure."""
    return [
        {
            "text": cut(row.get("text")),
            "where": flat(row.get("where")),
            "given": flat(row.get("given")) or say("nothing"),
            "other": flat(row.get("predicted", row.get("likely"))) or say("nothing"),
            "sure": _how_sure(row, say),
        }
        for row in dicts(rows)[:MOST_ROWS]
    ]


def agreement(facts: Facts, say: Say) -> tuple[list[Part], Table | None]:
    """Predicted against true numbers, a figure each, and the scores of each where there are several."""
    tables = of(facts.result, "after", "tables")
    parts = []
    for one in dicts(of(tables, "predicted"))[:MOST_PARTS]:
        truth, found = one.get("truth"), one.get("predicted")
        pairs = zip(truth, found, strict=False) if isinstance(truth, list) and isinstance(found, list) else ()
        dots = [(float(x), float(y)) for x, y in pairs if finite(x) and finite(y)]
        title, lead = say("agreement_figure", name=flat(one.get("name"))), say("agreement_about")
        axes = {"x_label": say("truth"), "y_label": say("predicted_axis")}
        drawn = agreement_figure(dots, title=title, about=lead, write=plain, **axes)
        parts += [Part(title, Markup(drawn), lead)] if drawn else []
    rows = dicts(of(tables, "per_number"))
    if not rows:
        return parts, None
    names = [key for key in rows[0] if key != "name"]
    lines = [(flat(row.get("name")), *(score(n, row.get(n)) for n in names)) for row in rows]
    return parts, Table((say("number"), *map(say, names)), lines)


def flat(value: Any) -> str:
    """Any JSON value as one line."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return " · ".join(f"{k} {flat(v)}" for k, v in [*value.items()][: 2 * MOST_ROWS])
    if isinstance(value, list | tuple):
        more = f", … ({len(value):,})" if len(value) > 2 * MOST_ROWS else ""
        return ", ".join(flat(v) for v in value[: 2 * MOST_ROWS]) + more
    if isinstance(value, float) and finite(value):
        return plain(value)
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)


def cut(value: Any) -> str:
    """As `flat`, and short enough to quote."""
    text = flat(value)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


def _how_sure(row: dict[str, Any], say: Say) -> str:
    """How sure the model was of an answer, or how far off its number is."""
    if finite(row.get("error")):
        return say("off_by", by=plain(row["error"]))
    return say("sure", score=percent(row.get("confidence", row.get("probability"))))


def _loss(facts: Facts, log: list[dict[str, Any]], say: Say) -> Part:
    loss = _points(log, "loss")
    if not loss:
        return Part("", Markup(""))
    (from_step, first), (to_step, last) = loss[0], loss[-1]
    ends = {"first": first, "from_step": from_step, "last": last, "to_step": to_step}
    series = [Series(say("loss_raw"), loss, "faint")] if len(loss) > 20 else []
    series.append(Series(say("loss_smooth"), figures.smoothed(loss)))
    valid = _points([s for s in facts.scores if finite(s.get("step"))], "values", "nll")
    series += [Series(say("valid_loss"), valid, "dots")] if valid else []
    return _chart(series, say("loss"), say("loss_about", **{k: plain(v) for k, v in ends.items()}), say)


def _validation(facts: Facts, say: Say) -> Part:
    name, curve = validation(facts)
    if not curve:
        return Part("", Markup(""))
    step, best = best_of(facts, curve)
    pairs = {s.get("step"): of(s, "intervals", name) for s in facts.scores}
    found: list[Any] = [pairs.get(step) for step, _ in curve]
    whiskers = [(float(p[0]), float(p[1])) for p in found if span(p)]
    series = [Series(say(name), curve, "line", whiskers if len(whiskers) == len(curve) else ())]
    title, about = (
        say("score_figure", name=say(name)),
        say("score_about", best=score(name, best), step=plain(step)),
    )
    write = partial(tick, name)
    drawn = figures.line_chart(series, title=title, about=about, x_label=say("step"), write=write, log=False)
    return Part(title, Markup(drawn), about)


def _curve(log: list[dict[str, Any]], key: str, say: Say, log_axis: bool | None) -> Part:
    curve = _points(log, key)
    if not curve:
        return Part("", Markup(""))
    about = say("curve_about", low=plain(min(y for _, y in curve)), high=plain(max(y for _, y in curve)))
    return _chart([Series(say(key), curve)], say(key), about, say, log_axis)


def _chart(series: list[Series], title: str, about: str, say: Say, log: bool | None = None) -> Part:
    drawn = figures.line_chart(series, title=title, about=about, x_label=say("step"), write=plain, log=log)
    return Part(title, Markup(drawn))


def _points(lines: list[dict[str, Any]], *keys: str) -> list[figures.Point]:
    """(step, value) of the lines that have both."""
    return [(float(line["step"]), float(of(line, *keys))) for line in lines if finite(of(line, *keys))]


def _is_square(labels: Any, counts: Any) -> bool:
    return (
        isinstance(labels, list)
        and isinstance(counts, list)
        and len(labels) == len(counts) > 0
        and all(isinstance(row, list) and len(row) == len(labels) and all(map(finite, row)) for row in counts)
    )
