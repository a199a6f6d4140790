"""The command line: one verb a job. The only file that prints or exits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.errors import PenjingError

app = typer.Typer(
    name="penjing",
    help="Grow large models in a small pot: tune, prove, use.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecFile = Annotated[
    Path | None, typer.Argument(help="YAML spec; every key can also be given below", show_default=False)
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="any key, such as train.lr=1e-4", metavar="KEY=VALUE")
]
BaseName = Annotated[str | None, typer.Option("--base", help="preset (minilm), folder or hub name")]
TrainRows = Annotated[
    list[str] | None, typer.Option("--train", help="rows to learn from: file, folder, glob")
]
ValidRows = Annotated[
    list[str] | None, typer.Option("--valid", help="validation rows; cut from train when not given")
]
TestRows = Annotated[list[str] | None, typer.Option("--test", help="test rows, used once, at the end")]
TaskName = Annotated[str | None, typer.Option("--task", help="such as classify")]
MethodName = Annotated[str | None, typer.Option("--method", help="such as full, lora, top, bitfit")]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def _spec_keywords(**given: Any) -> dict[str, Any]:
    return {k: (v[0] if isinstance(v, list) and len(v) == 1 else v) for k, v in given.items() if v}


@app.command()
def tune(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    valid: ValidRows = None,
    test: TestRows = None,
    task: TaskName = None,
    method: MethodName = None,
    name: Annotated[str | None, typer.Option("--name", help="name of the run's folder")] = None,
    out: Annotated[str | None, typer.Option("--out", help="folder that holds the runs")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    sets: Set = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="go on with a run: the one named in place of the spec, or the newest open one"
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the whole spec, train nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tune a base on rows; leaves a run with the best bundle, scores and a report."""
    given = _spec_keywords(
        base=base, train=train, valid=valid, test=test, task=task, method=method, name=name, out=out
    )
    if seed is not None:
        given["seed"] = seed
    if dry_run:
        _dry_run(spec, sets, given)
        return
    from penjing.jobs import train as job

    with _Screen(quiet=as_json) as screen:
        if resume:
            run = job.resume(spec, out=out or "runs", tell=screen.tell)
        else:
            run = job.tune(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
    if as_json:
        _print_json({"run": str(run.folder), **run.result})
    else:
        _print_result(run.folder, run.result)


def _dry_run(spec: Path | None, sets: list[str] | None, given: dict[str, Any]) -> None:
    import yaml

    from penjing import spec as specs
    from penjing.jobs.check import check as look

    whole = specs.read(spec, sets=tuple(sets or ()), **given)
    typer.echo(yaml.safe_dump(whole.written(), sort_keys=False, allow_unicode=True))
    _print_findings(look(whole))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="run or bundle folder")],
    data: Annotated[list[str], typer.Option("--data", help="labelled rows")],
    text: Annotated[str | None, typer.Option(help="column of the text")] = None,
    label: Annotated[str | None, typer.Option(help="column of the label")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a bundle on labelled rows."""
    from penjing.jobs.evaluate import evaluate as job

    with _Screen(quiet=True):
        found = job(run, data if len(data) > 1 else data[0], text=text, label=label)
    if as_json:
        _print_json(found)
        return
    for note in found["notes"]:
        typer.echo(f"· {note}")
    rows = [
        [name, f"{value:.4f}", " – ".join(f"{x:.4f}" for x in found["intervals"].get(name, ()))]
        for name, value in found["values"].items()
    ]
    _print_table(["score", "value", "95 % interval"], rows, title=f"{found['rows']:,} rows")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="run or bundle folder")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="texts, or one file of texts; standard input, a line a text, when not given"),
    ] = None,
    text: Annotated[str | None, typer.Option(help="column of the text, when a file is given")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    scores: Annotated[bool, typer.Option(help="with --json: the scores of every label")] = False,
) -> None:
    """Answer texts, a file of texts, or standard input."""
    from penjing.bundle import load
    from penjing.jobs.predict import answers, texts_of

    with _Screen(quiet=True):
        if texts:
            asked: Any = texts_of(texts, text=text)
        elif sys.stdin.isatty():
            raise typer.BadParameter("give texts, a file, or lines on standard input")
        else:
            asked = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        bundle = load(run)
        for asked_text, answer in answers(bundle, asked):
            if as_json:
                kept = answer if scores else {k: v for k, v in answer.items() if k != "scores"}
                typer.echo(json.dumps({"text": asked_text, **kept}, ensure_ascii=False))
            else:
                label = answer["label"] if "label" in answer else ", ".join(answer["labels"]) or "(none)"
                typer.echo(f"{label}\t{answer['confidence']:.3f}\t{asked_text}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="run folder")],
    language: Annotated[str | None, typer.Option(help="en or zh")] = None,
    show: Annotated[bool, typer.Option("--open/--no-open", help="open it in a browser")] = True,
) -> None:
    """Write the run's report (one HTML file) and open it in a browser."""
    from penjing.jobs.report import report as job

    with _Screen(quiet=True):
        path = job(run, language=language)
    typer.echo(str(path))
    if show and sys.stdout.isatty():
        typer.launch(path.resolve().as_uri())


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="tasks, methods, techniques …")] = None,
    as_json: AsJson = False,
) -> None:
    """List what can be chosen: tasks, methods, techniques and presets."""
    from penjing.errors import SpecError, nearest
    from penjing.models.presets import PRESETS
    from penjing.plugin import KINDS, found

    kinds: dict[str, dict[str, str]] = {k: {p.name: p.summary for p in found(k).values()} for k in KINDS}
    kinds["presets"] = {p.name: p.about for p in PRESETS.values()}
    if kind is not None and kind not in kinds:
        with _Screen(quiet=True):
            raise SpecError(f"`{kind}` is not a kind of plug-in: {', '.join(kinds)}.{nearest(kind, kinds)}")
    chosen = {k: v for k, v in kinds.items() if v and kind in (None, k)}
    if as_json:
        _print_json(chosen)
        return
    for name, plugs in chosen.items():
        typer.echo(name)
        for plug, summary in plugs.items():
            typer.echo(f"  {plug:<12} {summary}")


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="tasks, methods, techniques …")],
    name: Annotated[str, typer.Argument(help="such as lora")],
    source: Annotated[bool, typer.Option("--source/--no-source", help="print the code, too")] = True,
) -> None:
    """Show a plug-in: settings, documentation, code."""
    import inspect

    from penjing import plugin

    with _Screen(quiet=True):
        if kind not in plugin.KINDS:
            from penjing.errors import SpecError, nearest

            raise SpecError(
                f"`{kind}` is not a kind of plug-in: {', '.join(plugin.KINDS)}.{nearest(kind, plugin.KINDS)}"
            )
        settings = plugin.signature(kind, name)
        function = plugin.function(kind, name)
    typer.echo(f"{kind}/{name}.py: {name}\n\n{inspect.getdoc(function) or ''}\n")
    for setting, (annotation, default, required) in settings.items():
        typer.echo(f"  {setting}: {annotation}" + (" (must be given)" if required else f" = {default!r}"))
    if source:
        typer.echo("\n" + Path(inspect.getsourcefile(function) or "").read_text(encoding="utf-8"))


@app.command()
def check(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    valid: ValidRows = None,
    test: TestRows = None,
    task: TaskName = None,
    method: MethodName = None,
    sets: Set = None,
    batch: Annotated[
        bool,
        typer.Option("--show-batch", help="tokens and labels of the first rows, and what is learned from"),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for everything that can go wrong, before anything is loaded."""
    from penjing.jobs import check as job

    given = _spec_keywords(base=base, train=train, valid=valid, test=test, task=task, method=method)
    with _Screen(quiet=as_json) as screen:
        found = job.check(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
        shown = job.show_batch(spec, sets=tuple(sets or ()), **given) if batch and not _failed(found) else []
    if as_json:
        _print_json({"findings": [vars(f) for f in found], "batch": [vars(s) for s in shown]})
    else:
        _print_findings(found)
        for row in shown:
            tokens = " ".join(
                f"[{t}]" if learned else t for t, learned in zip(row.tokens, row.learned, strict=True)
            )
            typer.echo(f"\n{row.where}\n  tokens: {tokens}\n  learned: {row.target}")
    raise typer.Exit(1 if _failed(found) else 0)


@app.command()
def selfcheck(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    task: TaskName = None,
    method: MethodName = None,
    sets: Set = None,
    as_json: AsJson = False,
) -> None:
    """Try five promises on your own spec: accumulation, packing, resuming, repeating, saving."""
    from penjing.jobs.selfcheck import selfcheck as job

    given = _spec_keywords(base=base, train=train, task=task, method=method)
    with _Screen(quiet=as_json) as screen:
        found = job(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
    if as_json:
        _print_json([{**vars(d), "held": d.held} for d in found])
    else:
        rows = [
            [d.promise, f"{d.found:.1e}", f"{d.allowed:.0e}", "held" if d.held else "BROKEN", d.note]
            for d in found
        ]
        _print_table(["promise", "difference", "allowed", "", "of"], rows)
    raise typer.Exit(0 if all(d.held for d in found) else 1)


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", help="folder that holds the runs")] = "runs",
    language: Annotated[str, typer.Option(help="language of the report: en or zh")] = "en",
) -> None:
    """The main job on the embedded support desk: LoRA and full tuning beside baseline and untuned base."""
    from penjing.jobs.demo import demo as job

    with _Screen() as screen:
        found = job(out=out, language=language, tell=screen.tell)
    rows = [[r.name, f"{r.accuracy:.4f}", r.interval, r.time] for r in found.systems]
    _print_table(
        ["system", "test accuracy", "95 % interval", "time"], rows, title="Support desk, English, 24+ intents"
    )
    for text, label, confidence in found.answers:
        typer.echo(f"{label:<26} {confidence:.2f}  {text}")
    typer.echo(f"\nReport: {found.report}")
    typer.echo(f'Next: penjing predict {found.run} "my parcel came broken"')


def _failed(found: list[Any]) -> bool:
    return any(f.state == "error" for f in found)


def _print_findings(found: list[Any]) -> None:
    marks = {"ok": "ok   ", "note": "note ", "error": "ERROR"}
    for finding in found:
        typer.echo(f"{marks[finding.state]} {finding.about}: {finding.text}")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def _print_table(head: list[str], rows: list[list[str]], *, title: str = "") -> None:
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    if title:
        typer.echo(title)
    for row in [head, ["-" * w for w in widths], *rows]:
        typer.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _print_result(folder: Path, result: dict[str, Any]) -> None:
    name, split = result["best_name"], result["splits_scored"]
    systems = [("untuned", result["before"]), ("baseline", result["baseline"]), ("tuned", result["after"])]
    rows = [
        [
            label,
            f"{s['values'][name]:.4f}",
            " – ".join(f"{x:.4f}" for x in s.get("intervals", {}).get(name, ())),
        ]
        for label, s in systems
        if s.get("values")
    ]
    _print_table(["system", f"{name} ({split})", "95 % interval"], rows)
    typer.echo(f"\nrun     {folder}\nreport  {folder / 'report.html'}")
    typer.echo(f'try     penjing predict {folder} "your text"')


class _Screen:
    """Shows a job's news: bars on a terminal, plain lines elsewhere; turns errors into one clear text and exit code 1."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> _Screen:
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
        import time

        now = time.monotonic()
        if not self.live:
            if news.done == news.total or now - self._last > 10:
                self._last = now
                typer.echo(f"  {news.done:,}/{news.total:,} {news.text}", err=True)
            return
        if self._bar is None:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(news.text, total=news.total, rate="")
        speed = self._bar.tasks[0].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._bar.update(self._task, completed=news.done, total=news.total, description=news.text, rate=rate)

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        self._stop_bar()
        if isinstance(error, PenjingError):
            typer.echo(f"penjing: {error}", err=True)
            raise typer.Exit(1)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(130)
        return False


def main() -> None:
    """Entry point of the command `penjing`."""
    from penjing.threads import wait_without_spinning

    wait_without_spinning()
    _silence_optional_noise()
    app()


def _silence_optional_noise() -> None:
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
