"""compress.html: what each model of a chain weighs and is worth, and what smallness costs.

Words stand here in English and Chinese; those that other pages say, too, are in jobs/words.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from penjing.files import write_bytes
from penjing.jobs.numbers import IN_PERCENT, gain, memory, milliseconds, score, short_count, span
from penjing.jobs.report import rendered
from penjing.jobs.scatter import Spot, scatter
from penjing.jobs.sections import Part, Table
from penjing.jobs.words import Say, speaker
from penjing.places import typed

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "compress": "compress",
        "headline": "{said}: {size} times smaller, {speed} times as fast, {name} {change}",
        "points": "{n} points",
        "headline_none": "No model of this folder answers as the original does",
        "nearest": "No model keeps within the budget ({budget}); this one comes nearest: {short}.",
        "within": "The fastest model within the budget: {budget}.",
        "fastest": "The fastest of the models that answer as the original does. A budget, such as "
        '--budget "lose 1, speed 3", asks for another.',
        "use": "It answers as any bundle does:",
        "judged": "Judged on {rows} held-out rows; times are of the same minutes as the original's.",
        "prices": "What smallness costs",
        "prices_lead": "On the line lie the models that no other beats in both.",
        "by_size": "{name} by size on disk",
        "by_time": "{name} by time of a row",
        "x_size": "size on disk",
        "x_time": "time of a row, in a full queue",
        "models": "Every model",
        "models_lead": "Latency is the median of one row alone and of 32 at once; under it the original's "
        "over it, measured in turn. Lost is paired on the same rows, with its 95 % interval.",
        "model": "model",
        "original": "original",
        "size": "size",
        "times_smaller": "{n} times smaller",
        "parameters": "parameters",
        "one": "1 row",
        "full": "32 rows",
        "rate": "rows/s",
        "times": "{n} times",
        "peak": "peak memory",
        "lost": "lost",
        "agree": "same answers",
        "ece": "calibration error",
        "parity": "parity",
        "held": "held",
        "not_held": "outside",
        "outside": "Kept though outside the tolerance",
        "told": "What the steps told",
        "notes": "Notes",
    },
    "zh": {
        "compress": "压缩",
        "headline": "{said}：大小为原来的 1/{size}，速度为 {speed} 倍，{name} {change}",
        "points": "{n} 个百分点",
        "headline_none": "此文件夹中没有一个模型的回答与原模型一致",
        "nearest": "没有模型符合预算（{budget}）；最接近的是这个：{short}。",
        "within": "预算内最快的模型：{budget}。",
        "fastest": '回答与原模型一致的模型中最快的一个。可用预算（如 --budget "lose 1, speed 3"）另选。',
        "use": "用法与其他模型包相同：",
        "judged": "在 {rows} 行留出数据上评定；时间与原模型在同一段时间内交替测得。",
        "prices": "变小的代价",
        "prices_lead": "线上的模型在两方面都不被其他模型超过。",
        "by_size": "{name} 与磁盘大小",
        "by_time": "{name} 与每行时间",
        "x_size": "磁盘大小",
        "x_time": "满队列时每行时间",
        "models": "所有模型",
        "models_lead": "延迟为单行与 32 行的中位数；下方为原模型与它的比值，交替测得。"
        "损失在相同行上成对比较，附 95 % 区间。",
        "model": "模型",
        "original": "原模型",
        "size": "大小",
        "times_smaller": "原来的 1/{n}",
        "parameters": "参数",
        "one": "1 行",
        "full": "32 行",
        "rate": "行/秒",
        "times": "{n} 倍",
        "peak": "内存峰值",
        "lost": "损失",
        "agree": "回答相同",
        "ece": "校准误差",
        "parity": "一致性",
        "held": "通过",
        "not_held": "未通过",
        "outside": "超出容差但保留",
        "told": "各步骤的说明",
        "notes": "备注",
    },
}


def write_page(path: Path, result: Mapping[str, Any], language: str) -> None:
    """Write the page of what compress.json says."""
    page = rendered("compress.html.jinja", language=language, **view(result, language))
    write_bytes(path, page.encode("utf-8", "replace"))


def view(result: Mapping[str, Any], language: str) -> dict[str, Any]:
    """All that the template shows, as plain values."""
    plain = speaker(language)

    def say(key: str, **blanks: Any) -> str:
        return WORDS[language][key].format(**blanks) if key in WORDS[language] else plain(key, **blanks)

    headline, sentences, command = _top(result, say)
    outside = [(step["said"], "; ".join(step["broken"])) for step in result["steps"] if step["broken"]]
    return {
        "say": say,
        "name": Path(result["run"]).resolve().name,
        "headline": headline,
        "sentences": [*sentences, say("judged", rows=f"{result['rows']:,}")],
        "command": command,
        "prices": _prices(result, say),
        "models": _models(result, say),
        "outside": outside,
        "facts": [(step["said"], _facts(step["facts"])) for step in result["steps"] if step["facts"]],
        "notes": result["notes"],
    }


def _top(result: Mapping[str, Any], say: Say) -> tuple[str, list[str], str]:
    advice = result["advice"]
    if advice is None:
        return say("headline_none"), [], ""
    one, first, name = result["models"][advice["chosen"]], result["original"], result["score"]
    change = gain(name, one["score"] - first["score"], signed=True)
    headline = say(
        "headline",
        said=advice["said"],
        size=f"{first['n_bytes'] / one['n_bytes']:.1f}",
        speed=f"{_speed(one):.1f}",
        name=say(name),
        change=say("points", n=change) if name in IN_PERCENT else change,
    )
    budget = ", ".join(f"{name} {value:g}" for name, value in result["asked"]["budget"].items())
    how = "fastest" if not budget else "within" if advice["met"] else "nearest"
    command = f"penjing predict {typed(one['folder'])} TEXTS"
    return headline, [say(how, budget=budget, short="; ".join(advice["short"]))], command


def _speed(one: Mapping[str, Any]) -> float:
    return float(one["rows_a_s"] / one["versus_rows_a_s"])


def _prices(result: Mapping[str, Any], say: Say) -> list[Part]:
    """Score over size, and over the time of a row in terms of the original's."""
    name = result["score"]
    if name not in IN_PERCENT:
        return []
    first = result["original"]
    every = {say("original"): first, **{one["said"]: one for one in result["models"].values()}}
    row_ms = 1000 / first["rows_a_s"]
    prices = {
        "size": (lambda one: one["n_bytes"] / 2**20, memory),
        "time": (lambda one: row_ms / _speed(one), milliseconds),
    }
    parts = []
    for key, (price, write) in prices.items():
        spots = [
            Spot(price(one), one["score"], f"{said}: {score(name, one['score'])}, {write(price(one))}")
            for said, one in every.items()
        ]
        title = say(f"by_{key}", name=say(name))
        about = "; ".join(spot.told for spot in spots)
        drawn = scatter(spots, title=title, about=about, x_label=say(f"x_{key}"), x_write=write)
        if drawn:
            parts.append(Part(title, Markup(drawn)))
    return parts


def _models(result: Mapping[str, Any], say: Say) -> Table:
    name, first = result["score"], result["original"]
    keys = ("model", "size", "parameters", "one", "full", "rate", "peak")
    head = [say(key) for key in keys] + [say(name), say("lost"), say("agree"), say("ece"), say("parity")]
    rows = [_row(say("original"), first, first, name, say, alike=None, held=None)]
    for one in result["models"].values():
        rows.append(_row(one["said"], one, first, name, say, alike=one["alike"], held=one["held"]))
    return Table(tuple(head), rows)


def _row(
    said: str,
    one: Mapping[str, Any],
    first: Mapping[str, Any],
    name: str,
    say: Say,
    *,
    alike: float | None,
    held: bool | None,
) -> tuple[str, ...]:
    own = held is None

    def beside(text: str, ratio: float, key: str = "times") -> str:
        return text if own else f"{text}\n{say(key, n=f'{ratio:.1f}')}"

    times = []
    for n in ("1", "32"):
        ms = one["latency_ms"][n]
        times.append(beside(milliseconds(ms), one["versus_ms"][n] / ms))
    lost = "" if own else f"{gain(name, one['lost'] or 0.0)}\n{span(one['lost_interval'], name, signed=True)}"
    ece = one["values"].get("ece")
    return (
        said,
        beside(memory(one["n_bytes"] / 2**20), first["n_bytes"] / one["n_bytes"], "times_smaller"),
        short_count(one["parameters"]),
        *times,
        beside(f"{one['rows_a_s']:,.0f}", _speed(one)),
        memory(one["peak_mib"]),
        f"{score(name, one['score'])}\n{span(one['interval'], name)}",
        lost.rstrip("\n"),
        "" if alike is None else score("accuracy", alike),
        "" if ece is None else score("ece", ece),
        "" if held is None else say("held" if held else "not_held"),
    )


def _facts(facts: Mapping[str, Any]) -> str:
    """What a step told, short; tables of layers stay in compress.json."""
    said = []
    for key, value in facts.items():
        if isinstance(value, float):
            value = f"{value:.4g}"
        elif isinstance(value, Mapping | list | tuple):
            value = f"{len(value)} …"
        said.append(f"{key.replace('_', ' ')} {value}")
    return ", ".join(said)
