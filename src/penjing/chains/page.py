"""search.html: every trial, what mattered, what quality costs, and the command that repeats the winner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from penjing.chains.asked import Asked
from penjing.chains.importance import importance
from penjing.chains.journal import Journal
from penjing.chains.space import axes
from penjing.chains.words import WORDS
from penjing.files import write_bytes
from penjing.jobs.figures import Bar, bars
from penjing.jobs.numbers import IN_PERCENT, duration, gain, memory, milliseconds, percent, score, short_count
from penjing.jobs.report import rendered
from penjing.jobs.scatter import Spot, scatter
from penjing.jobs.sections import Part, Table
from penjing.jobs.words import Say, speaker
from penjing.places import typed
from penjing.run import Run

PAGE = "search.html"
PRICES: dict[str, Callable[[dict[str, Any], float], float]] = {  # of a trial carried to a share of its steps
    "trainable": lambda one, share: one["trainable"],
    "memory": lambda one, share: one["mib"],
    "time": lambda one, share: one["seconds"] / share,
    "latency": lambda one, share: one["latency_ms"],
}


def write_page(run: Run, asked: Asked, journal: Journal, shares: tuple[float, ...]) -> Path:
    """Write search.html into the search's folder and return its path."""
    language = asked.first.language
    plain = speaker(language)

    def say(key: str, **blanks: Any) -> str:
        return WORDS[language][key].format(**blanks) if key in WORDS[language] else plain(key, **blanks)

    found = run.read("search.json")
    name, lower = run.result["best_name"], run.result["lower"]
    trials = [{**one, "score": -one["score"]} if lower and one["score"] else one for one in found["trials"]]
    page = rendered(
        "search.html.jinja",
        say=say,
        language=language,
        name=run.folder.resolve().name,
        **_top(run, found, journal, shares, say),
        importance=_importance(asked, journal, shares, say),
        prices=_prices(trials, shares, say) if name in IN_PERCENT else [],
        candidates=_candidates(found["candidates"], name, say),
        trials=_trials(trials, name, say),
        failures=[(one["trial"], one["failed"]) for one in found["trials"] if one["failed"]],
        spec_text=(run.folder / "search.yaml").read_text(encoding="utf-8"),
    )
    path = run.folder / PAGE
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def _top(
    run: Run, found: dict[str, Any], journal: Journal, shares: tuple[float, ...], say: Say
) -> dict[str, Any]:
    chosen, result = found["chosen"], run.result
    name = result["best_name"]
    values = {"score": score(name, result["after"]["values"][name]), "name": say(name)}
    blanks = {**values, "split": say(result["splits_scored"]), "settings": told(found["settings"])}
    cheap = result["baseline"].get("values")
    sentences = [say("baseline_was", score=score(name, cheap[name]))] if cheap else []
    if chosen["way"] != "single":
        more, error = gain(name, chosen["gain"], signed=True), gain(name, chosen["error"])
        more = say("points", n=more) if name in IN_PERCENT else more
        blanks_of = {
            "what": _called(chosen["name"], say),
            "n": len(chosen["members"]),
            "gain": more,
            "error": error,
        }
        sentences.insert(0, say("is_" + ("soup" if chosen["way"] == "soup" else "ensemble"), **blanks_of))
    budget = sum(shares[outcomes[-1].rung] for outcomes in journal.outcomes.values())
    n_whole = sum(1 for outcomes in journal.outcomes.values() if outcomes[-1].rung == len(shares) - 1)
    n_trials = len(journal.outcomes)
    return {
        "headline": say("headline", **blanks),
        "sentences": sentences,
        "command": f"penjing tune {typed(run.folder / 'spec.yaml')} --name NAME",
        "tiles": [
            (say("trials"), str(n_trials), say("whole_ones", n=n_whole)),
            (say("budget"), f"{budget:.1f}", say("budget_of", n=n_trials)),
            (say("time"), duration(journal.seconds, say), say("time_of")),
        ],
    }


def told(settings: dict[str, Any]) -> str:
    """Settings as one line."""
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _importance(asked: Asked, journal: Journal, shares: tuple[float, ...], say: Say) -> Part | None:
    legs = [o for outcomes in journal.outcomes.values() for o in outcomes if o.score is not None]
    settings = [journal.settings[o.trial] for o in legs]
    found = importance(
        [axes(asked.values, one) for one in settings],
        settings,
        [shares[o.rung] for o in legs],
        [o.score for o in legs if o.score is not None],
    )
    if not found:
        return None
    title = say("mattered_figure")
    rows = [Bar(key, value, percent(value)) for key, value in found.items()]
    drawn = bars(rows, title=title, about=", ".join(f"{r.label} {r.note}" for r in rows), high=1.0)
    return Part(title, Markup(drawn), say("mattered_lead"))


def _prices(trials: list[dict[str, Any]], shares: tuple[float, ...], say: Say) -> list[Part]:
    write: dict[str, Callable[[float], str]] = {
        "trainable": short_count,
        "memory": memory,
        "time": lambda s: duration(s, say),
        "latency": milliseconds,
    }
    parts = []
    for key, price in PRICES.items():
        spots = [
            Spot(price(one, shares[one["rung"]]), one["score"], _point(one))
            for one in trials
            if one["score"] is not None
        ]
        title = say(f"by_{key}")
        drawn = scatter(spots, title=title, about=say("front"), x_label=say(f"x_{key}"), x_write=write[key])
        parts.append(Part(title, Markup(drawn)))
    return [part for part in parts if part.figure]


def _point(one: dict[str, Any]) -> str:
    return f"{one['trial']}: {percent(one['score'])}, {told(one['settings'])}"


def _candidates(candidates: list[dict[str, Any]], name: str, say: Say) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            _called(one["name"], say),
            str(len(one["members"])),
            score(name, one["score"]),
            gain(name, one["gain"], signed=True),
            gain(name, one["error"]),
        )
        for one in candidates
    ]
    gained = "gain" if name in IN_PERCENT else "gain_plain"
    return Table(tuple(say(k) for k in ("candidate", "models", "score", gained, "error_one")), rows)


def _called(name: str, say: Say) -> str:
    """A candidate as `winner.py` names it (`winner`, `best trials, mean`, `soup 1 of best trials`, `seed-1`),
    in the page's language."""
    if name.startswith("soup "):
        return say("soup_of", n=name.split()[1])
    return ", ".join(say(f"of_{part}") if f"of_{part}" in WORDS["en"] else part for part in name.split(", "))


def _trials(trials: list[dict[str, Any]], name: str, say: Say) -> Table:
    rows: list[tuple[str, ...]] = []
    for one in trials:
        spread = "" if one["spread"] is None else f"\n± {gain(name, one['spread'])}"
        value = say("failed") if one["score"] is None else score(name, one["score"]) + spread
        about = (f"{one['step']}/{one['steps']}", short_count(one["trainable"]), memory(one["mib"]))
        price = (duration(one["seconds"], say), milliseconds(one["latency_ms"]))
        rows.append((f"{one['trial']}: {told(one['settings'])}", value, *about, *price))
    keys = ("trial", "score", "steps", "x_trainable", "x_memory", "x_seconds", "x_latency")
    return Table(tuple(say(key) for key in keys), rows)
