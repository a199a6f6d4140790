"""What a run comes to, in sentences: the headline of the report and the few that explain it.

The wording follows the paired interval: a gain is called a gain only where the whole interval lies above
zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from penjing.jobs.numbers import IN_PERCENT, duration, finite, gain, plain, points, score, span
from penjing.jobs.reading import Facts, dicts, of
from penjing.jobs.words import Say

CALIBRATED = 0.02  # an expected calibration error up to here is called well calibrated
FEW_ANSWERS = 20  # of which all may be alike by chance
FEW_ROWS = 100  # fewer scored rows than this are said to be few


@dataclass(frozen=True)
class Verdict:
    """The headline, the sentences under it, the state (`done`, `running`, `died`), and the leading score's
    name."""

    headline: str
    sentences: tuple[str, ...]
    state: str
    name: str
    split: str  # `test` or `valid`
    advice: str = ""  # what to do where nothing is gained over the baseline, and whether rows leaked: the
    # sentences of `sentences` that nobody should miss


def verdict(facts: Facts, say: Say) -> Verdict:
    """Judge a run by what it left."""
    name, split = leading_score(facts), scored_split(facts)
    if facts.error is not None:
        at = facts.log[-1].get("step") if facts.log else None
        headline = say("died_at", step=plain(at)) if at is not None else say("died_early")
        return Verdict(headline, _progress(facts, say), "died", name, split)
    if not facts.result:
        last = facts.log[-1] if facts.log else {}
        headline = (
            say("running_at", step=plain(last.get("step")), loss=plain(last.get("loss")))
            if last
            else say("running_empty")
        )
        return Verdict(headline, _progress(facts, say), "running", name, split)
    after = of(facts.result, "after", "values", name)
    if not finite(after):
        return Verdict(say("unscored"), _progress(facts, say), "done", name, split)
    told = (
        _one_answer(facts, say) or _advice(facts, say, name),
        _unasked(facts, say),
        _leaked(facts, say, split),
    )
    urgent = tuple(said for said in told if said)
    sentences = (*urgent, *_sentences(facts, say, name, split))
    return Verdict(_headline(facts, say, name, split), sentences, "done", name, split, " ".join(urgent))


def leading_score(facts: Facts) -> str:
    """The score the headline tells: the one compared with the baseline, else the one that picked the best
    step."""
    values = of(facts.result, "after", "values") or {}
    for name in (
        of(facts.result, "difference", "name"),
        of(facts.result, "best_name"),
        "accuracy",
        "micro_f1",
        *values,
    ):
        if isinstance(name, str) and (name in values or not values):
            return name
    return "accuracy"


def scored_split(facts: Facts) -> str:
    """`test` where test rows were scored, else `valid`."""
    splits = facts.result.get("splits_scored", "test")
    return "test" if splits == "test" or (isinstance(splits, list) and "test" in splits) else "valid"


def _headline(facts: Facts, say: Say, name: str, split: str) -> str:
    after = facts.result["after"]
    told = f"{score(name, after['values'][name])} {span(of(after, 'intervals', name), name)}".strip()
    said = say(
        "model_right" if name == "accuracy" else "model_score", score=told, split=say(split), name=say(name)
    )
    cheap = of(facts.result, "baseline", "values", name)
    if not finite(cheap):
        return said + say("stop")
    return said + say("cheap_one", score=score(name, cheap)) + _compared(facts, say, name)


def _compared(facts: Facts, say: Say, name: str) -> str:
    """What the paired interval lets one say about tuned model and baseline; a full stop where there is
    none."""
    tested = difference(facts, name)
    if tested is None:
        return say("stop")
    mean, low, high = tested
    unit = "" if name in IN_PERCENT else "_plain"
    if low > 0:
        return say(f"worth{unit}", points=gain(name, mean), interval=span((low, high), name))
    if high < 0:
        return say(f"worse{unit}", points=gain(name, -mean), interval=span((-high, -low), name))
    told, interval = gain(name, mean, signed=True), span((low, high), name, signed=True)
    return say(f"chance{unit}", points=told, interval=interval)


def _advice(facts: Facts, say: Say, name: str) -> str:
    """What to do where the model is not better than the baseline; empty where it is, or where there is
    none."""
    tested = difference(facts, name)
    if tested is None or not finite(of(facts.result, "baseline", "values", name)):
        return ""
    return say("worse_advice") if tested[2] < 0 else say("chance_advice") if tested[1] <= 0 else ""


def _confusion(facts: Facts) -> tuple[list[str], list[list[int]]]:
    """Labels, and rows of each by the label that was answered, where each row has one label; else nothing."""
    found = of(facts.result, "after", "tables", "confusion") or {}
    one = "accuracy" in (of(facts.result, "after", "values") or {})
    return (found.get("labels") or [], found.get("counts") or []) if one else ([], [])


def _one_answer(facts: Facts, say: Say) -> str:
    """That the model gives every scored row one label, and so learned nothing of what they hold; empty where
    it does not, or where so few rows prove nothing."""
    labels, counts = _confusion(facts)
    if sum(map(sum, counts)) < FEW_ANSWERS:
        return ""
    answered = [label for label, column in zip(labels, zip(*counts, strict=True), strict=True) if any(column)]
    return say("one_answer", label=answered[0]) if len(answered) == 1 < sum(map(any, counts)) else ""


def _unasked(facts: Facts, say: Say) -> str:
    """That labels have no scored row, so that no score speaks of them; empty where each has one."""
    labels, counts = _confusion(facts)
    without = [label for label, row in zip(labels, counts, strict=True) if not any(row)]
    if not without:
        return ""
    names = ", ".join(without[:3]) + ", …" * (len(without) > 3)
    return say("unasked", n=plain(len(without)), all=plain(len(labels)), names=names)


def _leaked(facts: Facts, say: Say, split: str) -> str:
    """That scored rows are also train rows; empty where none is."""
    leaked = sum(
        int(leak.get("exact") or 0) + int(leak.get("near") or 0)
        for leak in dicts(facts.data.get("leaks"))
        if leak.get("from") == "train" and leak.get("to") == split
    )
    return say("leaked", n=plain(leaked)) if leaked else ""


def _sentences(facts: Facts, say: Say, name: str, split: str) -> tuple[str, ...]:
    result, said = facts.result, []
    if finite(of(result, "baseline", "values", name)) and difference(facts, name) is None:
        said.append(say("untested"))
    n_rows = of(facts.data, "sets", split, "rows")
    if finite(n_rows) and n_rows < FEW_ROWS:
        said.append(say("few_rows", n=plain(n_rows)))
    if split == "valid":
        said.append(say("on_valid"))
    if finite(of(result, "before", "values", name)):
        said.append(say("gained", score=score(name, of(result, "before", "values", name))))
    seconds, forecast = of(result, "cost", "seconds"), of(result, "cost", "forecast_s")
    if finite(seconds) and finite(forecast):
        said.append(say("under_forecast", time=duration(seconds, say), forecast=duration(forecast, say)))
    return tuple(said)


def difference(facts: Facts, name: str) -> tuple[float, float, float] | None:
    """Tuned model minus baseline: mean and 95 % interval, where this score was tested in pairs."""
    found = facts.result.get("difference")
    interval = of(found, "interval")
    if of(found, "name") != name or not finite(of(found, "mean")) or not span(interval):
        return None
    return of(found, "mean"), interval[0], interval[1]


def validation(facts: Facts) -> tuple[str, list[tuple[float, float]]]:
    """The score that picks the best step, and (step, value) of each validation."""
    seen = [
        line for line in facts.scores if isinstance(line.get("values"), dict) and finite(line.get("step"))
    ]
    named = facts.result.get("best_name") or (seen[-1].get("best") if seen else None)
    for name in (named, "accuracy", "micro_f1", *(seen[0]["values"] if seen else ())):
        curve = [(float(s["step"]), float(s["values"][name])) for s in seen if finite(s["values"].get(name))]
        if curve:
            return str(name), curve
    return "accuracy", []


def best_of(facts: Facts, curve: list[tuple[float, float]]) -> tuple[float, float]:
    """The best (step, value) of validations."""
    lower = facts.result.get("lower") or any(line.get("lower") for line in facts.scores)
    return (min if lower else max)(curve, key=lambda point: point[1])


def honesty(facts: Facts, say: Say) -> str:
    """One sentence on the calibration; empty where it was not measured."""
    ece = of(facts.result, "after", "values", "ece")
    bins = reliability_bins(facts)
    if not finite(ece) or not bins:
        return ""
    pull = sum(count * (confidence - share) for confidence, share, count in bins)
    key = "claims_well" if ece <= CALIBRATED else "claims_high" if pull > 0 else "claims_low"
    return say(key, points=points(ece))


def _progress(facts: Facts, say: Say) -> tuple[str, ...]:
    """The best validation score so far, if there is one."""
    name, curve = validation(facts)
    if not curve:
        return ()
    step, best = best_of(facts, curve)
    return (say("running_best", score=score(name, best), name=say(name), step=plain(step)),)


def reliability_bins(facts: Facts) -> list[tuple[float, float, int]]:
    """(claimed confidence, share right, rows) of each bin of the tuned model."""
    rows = dicts(of(facts.result, "after", "tables", "reliability"))
    keys = ("confidence", "accuracy", "count")
    return [
        (r["confidence"], r["accuracy"], int(r["count"])) for r in rows if all(finite(r.get(k)) for k in keys)
    ]
