"""Compress: a tuned run -> a chain of compressors -> a smaller bundle after each step, weighed and proved.

`RUN/compressed/` (or `out`) holds a folder a step: a bundle, with parity.json (is it what the original was?)
and weighed.json (what it costs and is worth) beside it. Folders are named by a key of all that decides their
content, so a chain that was killed goes on where it was, and chains that begin alike share their steps.
compress.json says what was asked and found, compress.html shows it with all other chains of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from penjing import bundle as bundles
from penjing.bundle import Bundle
from penjing.chains import budget as budgets
from penjing.chains import steps as chains
from penjing.chains.budget import Advice
from penjing.chains.compress_page import write_page
from penjing.chains.footing import Footing, footing
from penjing.chains.making import Made, make
from penjing.chains.proving import LOST, prove
from penjing.chains.weighed import Weighed, points, weigh
from penjing.errors import SpecError, WontFit
from penjing.files import sha256, told, write_json, write_text
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.numbers import IN_PERCENT
from penjing.jobs.parity import Parity
from penjing.plugin import Choice
from penjing.run import Run

WEIGHED, RESULT, PAGE = "weighed.json", "compress.json", "compress.html"


@dataclass(frozen=True)
class Step:
    """One finished step: where its bundle lies, what it weighs, whether it answers as it should."""

    name: str  # of its folder in `out`, by which models are told apart
    said: str  # the chain up to here
    key: str
    folder: Path
    weighed: Weighed
    held: bool
    broken: tuple[str, ...]
    alike: float | None  # share of replayed rows and edge cases answered as the original does
    facts: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Compressed:
    """A finished chain: its steps in order, the original's weight, and which model to take."""

    folder: Path
    original: Weighed
    steps: tuple[Step, ...]
    advice: Advice | None
    result: Mapping[str, Any]

    @property
    def bundle(self) -> Bundle:
        """What came of the last step, loaded."""
        return bundles.load(self.steps[-1].folder)

    def __repr__(self) -> str:
        """`Compressed('runs/a/compressed': trim_vocabulary>int8, 3.9 times smaller, 2.4 times as fast)`."""
        last = self.steps[-1].weighed
        size = self.original.n_bytes / last.n_bytes
        return (
            f"Compressed('{self.folder}': {self.steps[-1].said}, {size:.1f} times smaller, {last.speed:.1f} "
            "times as fast)"
        )


def compress(
    run: str | Path,
    steps: str | Path | Sequence[Any],
    *,
    out: str | Path | None = None,
    rows: str | Path | None = None,
    budget: str | Mapping[str, float] | None = None,
    lost: float = LOST,
    alike: float | None = None,
    allow: bool = False,
    memory: bool = True,
    seed: int = 0,
    base: str | None = None,
    device: str = "auto",
    trust: Sequence[str] = (),
    tell: Tell = silent,
) -> Compressed:
    """Take a run's best bundle (or a bundle) through a chain of compressors.

    Args:
        run: the run's folder, or a bundle's, which then needs `rows`.
        steps: `trim_vocabulary>int8`, a list of names and settings, or a YAML file of one.
        out: folder of the steps; `compressed` in the run's when not given.
        rows: labelled rows that every model is scored and replayed on; the run's validation rows when not
            given. Test rows are for the end: `penjing evaluate`.
        budget: such as `lose 1, speed 3`, or a mapping; see `chains/budget.py`.
        lost: most of the score that may be lost, as a share (of the original's, where that is none).
        alike: least share of rows answered as the original does; not judged when None.
        allow: keep a step that lies outside these, and say so.
        memory: measure the peak memory, in a process a step.

    Raises:
        SpecError, DataError: steps, budget or rows are not usable.
        NotSupported: nothing that can be compressed, or a step that answers otherwise.
        WontFit: no model of the folder meets the budget; all is written before.
    """
    chosen, wanted = chains.read(steps), budgets.read(budget)
    chains.build(chosen)
    _refuse(alike)
    ground = footing(run, out=out, rows=rows, seed=seed, base=base, device=device, trust=trust, tell=tell)
    with told(ground.out):
        ground.out.mkdir(parents=True, exist_ok=True)
    with Run(ground.out).held():
        how: dict[str, Any] = {"lost": lost, "alike": alike, "allow": allow}
        original = _weighed(ground, ground.original, None, memory, tell)
        done = _carried(ground, chosen, original, memory, how, tell)
        return _concluded(ground, original, done, chosen, wanted, tell)


def _carried(
    ground: Footing,
    chosen: Sequence[Choice],
    original: Weighed,
    memory: bool,
    how: Mapping[str, Any],
    tell: Tell,
) -> list[Step]:
    """Each step in turn: made, weighed, proved."""
    done: list[Step] = []
    at = ground.original
    for n, compressor in enumerate(chains.build(chosen), 1):
        here = chosen[:n]
        key = chains.key_of(ground.start, here, ground.rehearsed, ground.seed)
        folder = chains.folder_of(ground.out, here, key)
        said = chains.said(here)
        tell(News("stage", f"step {n} of {len(chosen)}: {chains.said(here[-1:])}"))
        made = make(ground, at, compressor, here[-1], folder, key, tell)
        weight = _weighed(ground, made.bundle, said, memory, tell)
        proof = prove(ground, made, weight, original, **how, said=said, tell=tell)
        done.append(_step(folder.name, said, key, made, weight, proof))
        at = made.bundle
    return done


def _step(name: str, said: str, key: str, made: Made, weight: Weighed, proof: Parity) -> Step:
    alike = proof.facts.get("answers", {}).get("alike")
    return Step(name, said, key, made.bundle.folder, weight, proof.held, proof.broken, alike, made.facts)


def plan(run: str | Path, steps: str | Path | Sequence[Any], **given: Any) -> list[dict[str, Any]]:
    """What `compress` would do, without doing it: each step with all its settings, its folder, and whether
    it is there already. `given` is as in `compress`.

    Raises:
        SpecError, DataError, NotSupported: as `compress`.
    """
    chosen = chains.read(steps)
    chains.build(chosen)
    budgets.read(given.get("budget"))
    _refuse(given.get("alike"))
    known = {k: given[k] for k in ("out", "rows", "seed", "base", "device", "trust") if k in given}
    ground = footing(run, merged=False, **known)
    found = []
    for n in range(1, len(chosen) + 1):
        key = chains.key_of(ground.start, chosen[:n], ground.rehearsed, given.get("seed", 0))
        folder = chains.folder_of(ground.out, chosen[:n], key)
        step = chosen[n - 1]
        about = {"step": step.written(), "said": chains.said([step], every=True)}
        done = any((place / WEIGHED).is_file() for place in (folder, folder / "best"))  # best: it trained
        found.append({**about, "folder": str(folder), "done": done})
    return found


def _refuse(alike: float | None) -> None:
    """Raises SpecError for a share that no model reaches, or every one does."""
    if alike is not None and not 0 <= alike <= 1:
        raise SpecError(
            f"Rows answered as before are 0 to 100 percent; `--alike` (in Python a share) asks for "
            f"{100 * alike:g}. 99 is strict."
        )


def _weighed(ground: Footing, bundle: Bundle, said: str | None, memory: bool, tell: Tell) -> Weighed:
    """What a bundle weighs, measured once; the original's file lies in `out`."""
    path = (bundle.folder if said else ground.out) / (WEIGHED if said else "original.json")
    card = sha256(bundle.folder / "card.json")
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        same = kept.get("card") == card and kept.get("rows") == ground.judged
        if same and (kept.get("memory", kept["peak_mib"]) or not memory):
            return weighed_of(kept)
    tell(News("stage", f"weighing {said or 'the original'}"))
    found = weigh(bundle, ground.original, ground.rows, seed=ground.seed, memory=memory)
    asked = {"said": said, "card": card, "rows": ground.judged, "memory": memory}  # which it may not have
    write_json(path, {**asked, **asdict(found)})
    return found


def weighed_of(kept: Mapping[str, Any]) -> Weighed:
    """What a weighed.json says."""
    known = {name: kept[name] for name in Weighed.__dataclass_fields__ if name in kept}
    for name in ("interval", "lost_interval"):
        known[name] = None if known.get(name) is None else tuple(known[name])
    return Weighed(**known)


def _concluded(
    ground: Footing,
    original: Weighed,
    done: Sequence[Step],
    chosen: Sequence[Choice],
    wanted: Mapping[str, float],
    tell: Tell,
) -> Compressed:
    """Write what was asked and found; the advice looks at every model of the folder that was weighed on the
    same rows."""
    best = ground.original.task.best
    every = {step.name: step.weighed for step in done}
    alike = {step.name: step.alike for step in done}
    fit = [step.name for step in done if step.held]
    names, places = {step.name: step.said for step in done}, {step.name: step.folder for step in done}
    for path in sorted(ground.out.glob(f"*/**/{WEIGHED}")):
        name = path.relative_to(ground.out).parts[0]
        kept = json.loads(path.read_text(encoding="utf-8"))
        if name not in every and kept.get("rows") == ground.judged:
            every[name], names[name], places[name] = weighed_of(kept), kept["said"], path.parent
            proof = Run(path.parent).read("parity.json")
            alike[name] = proof.get("answers", {}).get("alike")
            if proof.get("held"):
                fit.append(name)
    advice = budgets.advise(every, original, wanted, fit, best=best)
    if advice is not None:
        tell(News("note", _advised(advice, names, every[advice.chosen], original, best)))
    result: dict[str, Any] = {
        "run": str(ground.run),
        "asked": {"with": [step.written() for step in chosen], "budget": dict(wanted), "seed": ground.seed},
        "score": best,
        "lower": ground.original.task.lower,
        "rows": len(ground.rows),
        "notes": list(ground.notes),
        "original": asdict(original),
        "steps": [
            {**asdict(step), "folder": str(step.folder), "size": original.n_bytes / step.weighed.n_bytes}
            for step in done
        ],
        "models": {
            name: {
                "said": names[name],
                "folder": str(places[name]),
                "held": name in fit,
                "alike": alike[name],
                **asdict(one),
            }
            for name, one in every.items()
        },
        "advice": None if advice is None else {**asdict(advice), "said": names[advice.chosen]},
    }
    write_json(ground.out / RESULT, result)
    asked = {"run": result["run"], **{k: v for k, v in result["asked"].items() if v}}
    write_text(ground.out / "compress.yaml", yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))
    write_page(ground.out / PAGE, result, ground.language)
    if wanted and (advice is None or not advice.met):
        raise WontFit(_none(wanted, advice, names, every, original, best, ground.out / PAGE))
    return Compressed(ground.out, original, tuple(done), advice, result)


def _advised(advice: Advice, names: Mapping[str, str], one: Weighed, original: Weighed, best: str) -> str:
    lost = round(points(one, original, best), 2)
    unit = "points" if best in IN_PERCENT else f"% of its {best}"
    gain = f"{one.speed:.1f} times the original's rows a second, {original.n_bytes / one.n_bytes:.1f} times "
    gain += f"smaller, {abs(lost):.2f} {unit} {'gained' if lost < 0 else 'lost'}"
    met = "" if advice.met else f"; short of the budget: {', '.join(advice.short)}"
    return f"take `{names[advice.chosen]}` ({advice.chosen}): {gain}{met}"


def _none(
    wanted: Mapping[str, float],
    advice: Advice | None,
    names: Mapping[str, str],
    every: Mapping[str, Weighed],
    original: Weighed,
    best: str,
    page: Path,
) -> str:
    asked = ", ".join(f"{name} {value:g}" for name, value in wanted.items())
    beginning = f"A model within the budget `{asked}` was wanted; none of the {len(every)} in {page.parent} "
    if advice is None:
        return f"{beginning}answers as the original does. See {page}, and take gentler steps."
    return (
        f"{beginning}keeps to it. The nearest: "
        f"{_advised(replace(advice, met=True), names, every[advice.chosen], original, best)} "
        f"({'; '.join(advice.short)}). Try other steps (`penjing list compressors`), or ask for less; all "
        f"are in {page}."
    )
