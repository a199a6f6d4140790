"""What a person sees of a job: news while it works, tables, findings, and errors as one clear text.

Beside `cli.py` and `cli_corpus.py` the only file that prints or exits.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any, Literal

import typer

from penjing.errors import PenjingError, SpecError, nearest
from penjing.places import typed


class Screen:
    """Shows a job's news, bars on a terminal and lines elsewhere, all on standard error.

    As a context it turns an error into one text and exit code 1 (`{"error": …}` on standard output too,
    `as_json`), and Ctrl-C into exit code 130.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet or as_json, as_json
        self.live = sys.stderr.isatty() and not self.quiet
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> Screen:
        return self

    def tell(self, news: Any) -> None:
        """Show one piece of news."""
        if self.quiet:
            return
        if news.kind == "progress":
            self._progress(news)
            return
        self._stop_bar()
        mark = {"stage": "▸", "note": "·", "score": "✓"}[news.kind]
        typer.echo(f"{mark} {news.text}", err=True)

    def _progress(self, news: Any) -> None:
        if not self.live:
            now = time.monotonic()
            if news.done == news.total or now - self._last > 10:
                self._last = now
                typer.echo(f"  {news.done:,}/{news.total:,} {news.text}", err=True)
            return
        if self._bar is None:
            self._start_bar(news)
        speed = self._bar.tasks[0].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._bar.update(self._task, completed=news.done, total=news.total, description=news.text, rate=rate)

    def _start_bar(self, news: Any) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            transient=True,
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(news.text, total=news.total, rate="")

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Literal[False]:
        self._stop_bar()
        if isinstance(error, PenjingError):
            if self.as_json:
                print_json_line({"error": str(error)})  # on one, for verbs that print a line an answer
            typer.echo(f"penjing: {error}", err=True)
            raise typer.Exit(1) from error
        if isinstance(error, KeyboardInterrupt):
            typer.echo("penjing: stopped", err=True)
            raise typer.Exit(130) from error
        return False


def failed(found: list[Any]) -> bool:
    """True when one of the findings is an error."""
    return any(finding.state == "error" for finding in found)


def print_findings(found: list[Any]) -> None:
    """One line a finding."""
    marks = {"ok": "ok   ", "note": "note ", "error": "ERROR"}
    for finding in found:
        typer.echo(f"{marks[finding.state]} {finding.about}: {finding.text}")


def print_batch(shown: list[Any]) -> None:
    """Rows as the model reads them, with what is learned."""
    for row in shown:
        tokens = "" if row.marks else f": {' '.join(row.tokens)}"
        typer.echo(f"\n{row.where}\n  read     {len(row.tokens)} tokens{tokens}")
        if row.marks:
            _print_marked(row)
            continue
        if row.learned:
            typer.echo(f"  learned  the row's label: {row.learned}")
        if any(row.each):
            own = (f"{token} {said}" for token, said in zip(row.tokens, row.each, strict=True) if said)
            typer.echo(f"  learned  of tokens: {' · '.join(own)}")


def print_hits(found: list[dict[str, Any]]) -> None:
    """What was found of each query: score, row of the corpus, text on one line."""
    for one in found:
        if len(found) > 1:
            typer.echo(one["query"])
        for hit in one["hits"]:
            typer.echo(f"{hit['score']:.4f}\t{hit['row']}\t{' '.join(hit['text'].split())}")


def _print_marked(row: Any) -> None:
    """The tokens one after another; what is learned stands in ⟦ ⟧, green on a terminal, the rest is faint."""
    pieces: list[str] = []
    for token, learned, before in zip(row.tokens, row.marks, [False, *row.marks[:-1]], strict=True):
        if learned != before:
            pieces.append("⟦" if learned else "⟧")
        pieces.append(typer.style(token, fg="green", bold=True) if learned else typer.style(token, dim=True))
    text = "".join([*pieces, "⟧" * row.marks[-1]])
    shown = "\n".join("  " + line for line in text.split("\n"))
    typer.echo(f"  learned  {sum(row.marks)} of {len(row.marks)} tokens, those in ⟦ ⟧:\n{shown}")


def print_json(value: Any) -> None:
    """One JSON value, readable by people; what JSON has no word for (NaN) becomes null."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=1, default=str))


def print_json_line(value: Any) -> None:
    """One JSON value on a line of its own."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:  # NaN and infinities
        return None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def print_table(head: list[str], rows: list[list[str]], *, title: str = "") -> None:
    """A table of plain text."""
    widths = [max(_width(row[i]) for row in [head, *rows]) for i in range(len(head))]
    if title:
        typer.echo(title)
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Places of a terminal that a text takes: two for a Chinese character, none for a combining mark."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def interval(found: dict[str, Any], name: str) -> str:
    """`0.9012 – 0.9344`, or nothing where a score has no interval."""
    return " – ".join(f"{x:.4f}" for x in found.get("intervals", {}).get(name, ()))


def print_demo(found: Any) -> None:
    """The demo: systems side by side, a few answers, and what to do next."""
    rows = [[r.name, f"{r.accuracy:.4f}", r.interval, r.time] for r in found.systems]
    title = f"Support desk, English: {found.n_labels} intents, {found.n_test} test rows"
    print_table(["system", "test accuracy", "95 % interval", "time"], rows, title=title)
    for text, label, confidence in found.answers:
        typer.echo(f"{label:<26} {confidence:.2f}  {text}")
    typer.echo(f"\nReport: {found.report}")
    typer.echo(f'Next: penjing predict {typed(found.run)} "my parcel came broken"')


def kinds() -> dict[str, dict[str, str]]:
    """Every name that can be chosen and what it is, by kind."""
    from penjing.models.presets import PRESETS
    from penjing.models.shapes import SHAPES
    from penjing.plugin import KINDS, bases, found

    plugs = {kind: {plug.name: plug.summary for plug in found(kind).values()} for kind in KINDS}
    for name, known in bases().items():
        if known["refuses"]:
            plugs["methods"][name] += f" (not on {', '.join(known['refuses'])})"
    presets = {preset.name: preset.about for preset in PRESETS.values()}
    return {**plugs, "presets": presets | {shape.name: shape.summary for shape in SHAPES.values()}}


def _kind(word: str) -> str:
    """A kind by its name in the plural or, as in a spec, in the singular."""
    known = kinds()
    kind = next((k for k in known if word in (k, k.removesuffix("s"))), None)
    if kind is None:
        raise SpecError(
            f"`{word}` is not a kind of plug-in: {', '.join(known)}.{nearest(word, known)} Give one of these."
        )
    return kind


def print_scores(found: dict[str, Any]) -> None:
    """What an evaluation found, with intervals, and what is worth knowing of the rows."""
    for note in found["notes"]:
        typer.echo(f"· {note}")
    rows = [[name, f"{value:.4f}", interval(found, name)] for name, value in found["values"].items()]
    print_table(["score", "value", "95 % interval"], rows, title=f"{found['rows']:,} rows")


def print_promises(found: list[Any]) -> None:
    """Promises tried (jobs.selfcheck.Difference) and whether they held."""
    rows = [
        [d.promise, f"{d.found:.1e}", f"{d.allowed:.0e}", "held" if d.held else "BROKEN", d.note]
        for d in found
    ]
    print_table(["promise", "difference", "allowed", "", "of"], rows)


def print_list(kind: str | None, *, as_json: bool) -> None:
    """What can be chosen, of one kind or of all."""
    chosen = {k: v for k, v in kinds().items() if (v and kind is None) or (kind and k == _kind(kind))}
    if as_json:
        print_json(chosen)
        return
    for name, plugs in chosen.items():
        typer.echo(name if plugs else f"{name}: none yet")
        width = max(map(len, plugs), default=0)
        for plug, summary in plugs.items():
            typer.echo(f"  {plug:<{width}}  {summary}")


def print_plugin(kind: str, name: str, *, source: bool) -> None:
    """A plug-in: documentation, settings, code."""
    from penjing import plugin

    kind = _kind(kind)
    if kind == "presets":
        _print_preset(name)
        return
    settings = plugin.signature(kind, name)
    about = plugin.about(kind, name)
    typer.echo(f"{kind} / {name}, from {about.path}\n\n{about.doc}\n")
    for verb, families in plugin.bases().get(name, {}).items() if kind == "methods" else ():
        typer.echo(f"  {verb}: {', '.join(families) or 'none of those tried'}")
    for setting, one in settings.items():
        typer.echo(
            f"  {setting}: {one.type}" + (" (must be given)" if one.required else f" = {one.default!r}")
        )
    if not settings:
        typer.echo("  It has no settings.")
    if source:
        typer.echo("\n" + about.path.read_text(encoding="utf-8"))


def _print_shape(name: str) -> None:
    from penjing.jobs.card import TOKENS, card_of
    from penjing.models.shapes import SHAPES

    known, card = SHAPES[name], card_of(name)
    typer.echo(f"{known.summary}\nshape of {known.source}; {known.words or 'sees images, has no words'}\n")
    typer.echo("  " + "\n  ".join(f"{key}: {value}" for key, value in known.shape.items()))
    of = f" of {card.words:,} words" if card.words else ""
    rows = [["parameters", f"{card.parameters:,}{of}"]]
    if card.words:
        rows.append(["a word more or less", f"{card.a_word:,} parameters"])
    for part, flops in card.flops.items():
        rows.append([f"operations a token{f', {part}' if part else ''}", f"{flops / 1e6:,.1f} M"])
    if card.words:
        rows.append(["and a word that is predicted", f"{card.head_flops / 1e6:,.1f} M"])
    typer.echo("")
    print_table(["forward and backward", f"rows of {card.longest} tokens"], rows)
    if card.mib:
        methods = [[m, *(f"{mib:,.0f}" for mib in by.values())] for m, by in card.mib.items()]
        typer.echo("")
        title = f"MiB to train the trunk, weights and {TOKENS:,} tokens at once"
        print_table(["method", *next(iter(card.mib.values()))], methods, title=title)


def _print_preset(name: str) -> None:
    from penjing.models.presets import PRESETS
    from penjing.models.shapes import SHAPES

    if name in SHAPES:
        _print_shape(name)
        return
    if name not in PRESETS:
        known = [*PRESETS, *SHAPES]
        raise SpecError(
            f"`{name}` is not a preset: {', '.join(known)}.{nearest(name, known)} Give one of these."
        )
    preset = PRESETS[name]
    typer.echo(f"{preset.about}\ncomes with {preset.requirement}; SHA-256 of its weights {preset.sha256}")


def print_trials(trials: list[dict[str, Any]], *, lower: bool = False, most: int = 8) -> None:
    """The best trials of a search: score, how far it was carried, settings. `lower`: less is better, and the
    trials hold their scores turned round."""
    sign = -1 if lower else 1
    rows = [
        [
            str(one["trial"]),
            f"{sign * one['score']:.4f}" if one["score"] is not None else "failed",
            f"{one['step']}/{one['steps']}",
            ", ".join(f"{key} {value}" for key, value in one["settings"].items()),
        ]
        for one in trials[:most]
    ]
    print_table(["trial", "validation", "steps", "settings"], rows)
    typer.echo(f"({len(trials)} trials in all)\n" if len(trials) > most else "")


# What to ask after a run of a task; of the others a text.
ASKED = {
    "pair": "$'one text\\tanother text'",
    "answer": "$'your question\\tyour text'",
    "answer_in_words": "$'your question\\tyour text'",
    "see": "image.jpg",
    "choose": """'{"question": "…", "choices": ["…", "…"]}'""",
    "relate": '"<e1>one</e1> and <e2>another</e2>"',
}


def print_result(folder: Path, result: dict[str, Any]) -> None:
    """A finished run: the tuned model beside baseline and untuned base, what that comes to, what to do
    next."""
    from penjing.jobs.report import verdict_of

    name, split = result["best_name"], result["splits_scored"]
    systems = [
        ("untuned", result["before"]),
        ("baseline", result.get("baseline", {})),
        ("tuned", result["after"]),
    ]
    rows = [
        [label, f"{found['values'][name]:.4f}", interval(found, name)]
        for label, found in systems
        if found.get("values")
    ]
    print_table(["system", f"{name} ({split})", "95 % interval"], rows)
    seen = verdict_of(folder)
    typer.echo("\n" + " ".join(part for part in (seen.headline, seen.advice) if part))
    typer.echo(f"\nrun     {folder}\nreport  {folder / 'report.html'}")
    asked = ASKED.get(str(result.get("task")), '"your text"')
    typer.echo(f"try     penjing predict {typed(folder)} {asked}")


def print_grown(folder: Path, result: dict[str, Any]) -> None:
    """A finished pretraining: held-out loss before and after, some of its answers, and what to do next."""
    rows = []
    for name, value in result["after"]["values"].items():
        before = result["before"].get("values", {}).get(name)
        cells = [name, "" if before is None else f"{before:,.4f}", f"{value:,.4f}"]
        rows.append([*cells, interval(result["after"], name)])
    images = result.get("task") == "masked_image"
    print_table([f"held-out {'images' if images else 'text'}", "before", "after", "95 % interval"], rows)
    for one in result.get("shown", [])[:2]:
        typer.echo(f"\ngiven   {' '.join(one['given'].split())[:300]}")
        typer.echo(f"found   {' '.join(one['found'].split())[:300]}")
        if one.get("wanted"):
            typer.echo(f"wanted  {' '.join(one['wanted'].split())[:300]}")
    typer.echo(f"\nrun     {folder}\nreport  {folder / 'report.html'}")
    how = "--task see --train images" if images else "--train rows.csv"
    typer.echo(f"use     penjing tune --base {typed(folder)} {how}")
