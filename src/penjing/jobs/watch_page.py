"""The page of a look: what moved and by how much, beside what it was."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from penjing.drift.verdict import Check
from penjing.errors import SpecError, nearest
from penjing.files import write_bytes
from penjing.jobs.figures import Bar, Series, bars, line_chart
from penjing.jobs.report import rendered
from penjing.jobs.sections import Part, Table
from penjing.jobs.watch import Watched
from penjing.plural import counted

WORDS = {
    "en": {
        "state_moved": "moved", "state_still": "still", "state_few": "too few rows",
        "headline_moved": "The world moved: {what}", "headline_still": "Nothing moved",
        "headline_few": "Too few rows to say anything",
        "sentence": "{new:,} rows beside the {old:,} that the model was proved on. A change counts when its "
        "p-value, after Holm's rule over all checks, is at or below {level:.2g} and it touches at least "
        "{least:.0%} of the rows.",
        "sentence_few": "{new} rows came, and 50 are the fewest that are compared.",
        "checks": "What was looked at", "check": "check", "was": "was", "is": "is", "effect": "effect",
        "p": "p", "verdict": "verdict", "moved": "moved", "still": "still",
        "pictures": "What it was and what it is",
        "pictures_lead": "Of numbers the share of rows at or below each value: where lines part, rows moved.",
        "reference": "was", "new": "is", "share": "share of rows",
        "farthest": "Texts with nothing like them in the reference", "notes": "Notes", "rows": "rows",
        "text": "text", "answer": "answer", "looked": "looked at",
        "vectors": "what texts are about", "lengths": "tokens a text",
        "unknown": "tokens the tokenizer does not have", "unseen": "tokens that no train row had",
        "language": "languages", "answers": "answers", "confidence": "confidence",
        "quality": "right answers, of rows with feedback",
        "axis": "along the component that moved most, x 100",
        "percent": "%",
    },
    "zh": {
        "state_moved": "有变化", "state_still": "无变化", "state_few": "行数太少",
        "headline_moved": "数据变了：{what}", "headline_still": "没有变化",
        "headline_few": "行数太少，无法判断",
        "sentence": "{new:,} 行新数据，与验证模型的 {old:,} 行相比。经 Holm 校正后 p 值不超过 {level:.2g}、"
        "且至少影响 {least:.0%} 的行，才算变化。",
        "sentence_few": "只有 {new} 行；至少需要 50 行。",
        "checks": "检查了什么", "check": "检查", "was": "原来", "is": "现在", "effect": "效应", "p": "p 值",
        "verdict": "结论", "moved": "变了", "still": "未变", "pictures": "原来与现在",
        "pictures_lead": "数值：不超过该值的行所占比例；两线分开之处，便是变化。",
        "reference": "原来", "new": "现在", "share": "行的比例", "farthest": "参照中没有相似者的文本",
        "notes": "备注", "rows": "行", "text": "文本", "answer": "回答", "looked": "查看时间",
        "vectors": "文本内容", "lengths": "每条文本的词元数", "unknown": "分词器不认识的词元",
        "unseen": "训练中未出现的词元", "language": "语言", "answers": "回答", "confidence": "置信度",
        "quality": "有反馈的行中回答正确者", "axis": "变化最大的主成分方向，×100", "percent": "%",
    },
}  # fmt: skip
POINTS = 60
TIMES = {"confidence": 100.0, "unknown": 100.0, "unseen": 100.0, "vectors": 100.0}  # axes have whole numbers


def refuse_language(language: str) -> None:
    """Raises SpecError for a language that the page has no words in."""
    if language not in WORDS:
        raise SpecError(
            f"The page can be written in {', '.join(WORDS)}; `language` is `{language}`."
            f"{nearest(language, WORDS)} Choose one of them."
        )


def write_page(found: Watched, path: Path, *, language: str = "en") -> Path:
    """Write the page of a look, whole in one file.

    Raises:
        SpecError: no such language. CannotWrite: it could not be written.
    """
    refuse_language(language)
    words = WORDS[language]

    def say(key: str, **blanks: Any) -> str:
        return words[key].format(**blanks) if blanks else words.get(key, key)

    verdict = found.verdict
    state = "few" if verdict is None else "moved" if verdict.moved else "still"
    checks = () if verdict is None else verdict.checks
    if verdict is None:
        sentence = say("sentence_few", new=len(found.new))
    else:
        counts = {"new": verdict.n_new, "old": verdict.n_reference}
        sentence = say("sentence", level=verdict.level, least=verdict.least, **counts)
    what = ", ".join(say(check.name) for check in checks if check.moved)
    page = rendered(
        "watch.html.jinja",
        say=say,
        language=language,
        name=found.model,
        state=state,
        headline=say(f"headline_{state}", what=what) if state == "moved" else say(f"headline_{state}"),
        sentence=sentence,
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.at)),
        rows=counted(len(found.new), "row") if language == "en" else f"{len(found.new):,} 行",
        checks=_table(checks, say) if checks else None,
        pictures=[part for check in checks if (part := _picture(check, found, say))],
        farthest=[(one["text"][:400], one["answer"] or "") for one in found.farthest],
        notes=found.notes,
    )
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def _table(checks: tuple[Check, ...], say: Any) -> Table:
    rows = []
    for check in checks:
        was, now = _before_and_now(check)
        mark = say("moved") if check.moved else say("still")
        rows.append((say(check.name), was, now, f"{check.effect:.3f}", f"{check.p:.2g}", mark))
    head = tuple(say(key) for key in ("check", "was", "is", "effect", "p", "verdict"))
    return Table(head, [tuple(row) for row in rows])


def _before_and_now(check: Check) -> tuple[str, str]:
    facts = check.facts
    if "most" in facts:
        first = facts["most"][0] if facts["most"] else None
        return (f"{first['name']} {first['was']:.1%}", f"{first['is']:.1%}") if first else ("-", "-")
    if "was" not in facts:
        return "-", f"MMD² {facts['mmd2']:.4f}"
    form = ".1f" if check.name == "lengths" else ".1%"
    return f"{facts['was']:{form}}", f"{facts['is']:{form}}"


def _picture(check: Check, found: Watched, say: Any) -> Part | None:
    title = say(check.name)
    if "most" in check.facts:
        pairs = [
            [Bar(one["name"], one["was"], f"{one['was']:.1%} {say('was')}", look="before"),
             Bar("", one["is"], f"{one['is']:.1%} {say('is')}")]
            for one in check.facts["most"]
        ]  # fmt: skip
        drawn = bars([bar for pair in pairs for bar in pair], title=title, about=title)
        return Part(title, Markup(drawn)) if drawn else None
    old, new = (getattr(seen, check.name, None) for seen in (found.reference, found.new))
    if old is None or new is None:
        return None
    label = say("percent") if check.name in TIMES else title
    if check.name == "vectors":
        column = old.shape[1] - 1 if check.facts["beside"] else check.facts["component"]
        old, new, label = old[:, column], new[:, column], say("axis")
    times = TIMES.get(check.name, 1.0)
    both = [np.sort(np.asarray(values, dtype=np.float64)) * times for values in (old, new)]
    places = np.linspace(min(v[0] for v in both), max(v[-1] for v in both), POINTS)
    below = [np.searchsorted(values, places, "right") / len(values) for values in both]
    series = [
        Series(say(name), [(float(x), float(y)) for x, y in zip(places, share, strict=True)], look)
        for name, share, look in zip(("reference", "new"), below, ("dashed", "line"), strict=True)
    ]
    chart = line_chart(
        series, title=title, about=say("share"), x_label=label, write=lambda y: f"{y:.0%}", log=False
    )
    return Part(title, Markup(chart)) if chart else None
