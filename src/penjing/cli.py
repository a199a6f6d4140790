"""The command line: one verb a job. With `cli_*.py` and `screen.py` all that prints or exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_check import check, selfcheck
from penjing.cli_compress import compress
from penjing.cli_corpus import app as corpus
from penjing.cli_export import export
from penjing.cli_find import find, index, mine, sentences
from penjing.cli_grow import pretrain
from penjing.cli_log import export_log
from penjing.cli_options import (
    AsJson,
    BaseFolder,
    BaseName,
    Choices,
    Files,
    Folder,
    LabelColumn,
    MethodName,
    On,
    Out,
    Processes,
    Regex,
    Resume,
    RunName,
    Schema,
    Set,
    SpecFile,
    TaskName,
    TestRows,
    TextColumn,
    TrainRows,
    ValidRows,
    form_given,
    given_of,
    refuse_ignored,
)
from penjing.cli_plan import plan
from penjing.cli_serve import keys, promote, roll_back, serve
from penjing.cli_show import list_, show
from penjing.cli_tokenizer import tokenizer
from penjing.cli_watch import traffic, update, watch
from penjing.errors import SpecError
from penjing.screen import (
    Screen,
    failed,
    print_demo,
    print_findings,
    print_json,
    print_json_line,
    print_result,
    print_scores,
    print_trials,
)
from penjing.trust import allow

app = typer.Typer(
    name="penjing",
    help="Grow large models in a small pot: tune, prove, use.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


@app.callback(invoke_without_command=True)
def _penjing(
    version: Annotated[bool, typer.Option("--version", help="print the version and leave")] = False,
    trust: Annotated[
        Files, typer.Option("--trust", metavar="PACKAGE", help="whose functions bundles may name")
    ] = None,
) -> None:
    allow(trust or ())
    if version:
        from penjing import __version__

        typer.echo(__version__)
        raise typer.Exit


def tune(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    valid: ValidRows = None,
    test: TestRows = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    task: TaskName = None,
    method: MethodName = None,
    name: RunName = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of all that is drawn; 0")] = None,
    shots: Annotated[int | None, typer.Option("--shots", help="rows a label, for --task few_shot")] = None,
    processes: Processes = None,
    sets: Set = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the whole spec, train nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tune a base on rows; leaves a run with the best bundle, scores and a report."""
    given = given_of(
        base=base, train=train, valid=valid, test=test, text=text, label=label, task=task, method=method,
        name=name, seed=seed, **{"task.shots": shots},
    )  # fmt: skip
    with Screen(as_json=as_json) as screen:
        if resume:
            refuse_ignored(given, sets=sets, dry_run=dry_run)
            from penjing.jobs.train import resume as go_on

            run = go_on(spec, out=out or "runs", processes=processes, tell=screen.tell)
        elif dry_run:
            more = given_of(out=out, processes=processes)
            raise typer.Exit(_dry_run(spec, sets, {**given, **more}, as_json))
        else:
            from penjing.jobs.train import tune as job

            given |= given_of(out=out, processes=processes)
            run = job(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
        if run.mute:  # one of several that torchrun started; the first one shows
            return
        result = run.result
    if as_json:
        print_json({"run": str(run.folder), **result})
    else:
        print_result(run.folder, result)


def _dry_run(spec: Path | None, sets: Sequence[str] | None, given: dict[str, Any], as_json: bool) -> int:
    import yaml

    from penjing import spec as specs
    from penjing.jobs.check import check as look

    whole = specs.read(spec, sets=tuple(sets or ()), **given)
    found = look(whole)
    if as_json:
        print_json({"spec": whole.written(), "findings": [vars(f) for f in found]})
    else:
        typer.echo(yaml.safe_dump(whole.written(), sort_keys=False, allow_unicode=True))
        print_findings(found)
    return 1 if failed(found) else 0


def search(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    valid: ValidRows = None,
    test: TestRows = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    task: TaskName = None,
    trials: Annotated[int | None, typer.Option("--trials", help="most settings to try")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="begin nothing that would not end within this time")
    ] = None,
    on: On = None,
    name: RunName = None,
    out: Out = None,
    sets: Set = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check every end of the space, print it, train nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the best settings of a spec with spaces in it; leaves the winner, proved, and every trial."""
    how = {f"search.{key}": value for key, value in given_of(trials=trials, minutes=minutes).items()}
    given = given_of(
        base=base, train=train, valid=valid, test=test, text=text, label=label, task=task, name=name
    )
    with Screen(as_json=as_json) as screen:
        if resume:
            refuse_ignored({**given, **how}, sets=sets, dry_run=dry_run)
            from penjing.chains.search import resume as go_on

            run = go_on(spec, on=on, out=out or "runs", tell=screen.tell)
        else:
            from penjing.chains.search import search as job

            given |= given_of(out=out) | how
            if dry_run:
                _print_space(spec, sets, given, as_json)
                return
            run = job(spec, sets=tuple(sets or ()), on=on, tell=screen.tell, **given)
        result, found = run.result, run.read("search.json")
    if as_json:
        print_json({"run": str(run.folder), **result, "search": found})
    else:
        print_trials(found["trials"], lower=result["lower"])
        print_result(run.folder, result)


def _print_space(spec: Path | None, sets: Sequence[str] | None, given: dict[str, Any], as_json: bool) -> None:
    import yaml

    from penjing.chains.asked import read

    asked = read(spec, sets=tuple(sets or ()), **given)
    if as_json:
        print_json(asked.written())
    else:
        typer.echo(yaml.safe_dump(asked.written(), sort_keys=False, allow_unicode=True))


def evaluate(
    run: Folder,
    data: Annotated[list[str], typer.Option("--data", help="labelled rows")],
    text: TextColumn = None,
    label: LabelColumn = None,
    encoding: Annotated[str | None, typer.Option(help="such as gb18030")] = None,
    delimiter: Annotated[str | None, typer.Option(help="between the labels of one cell")] = None,
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help="leave out rows that lack one")] = False,
    base: BaseFolder = None,
    as_json: AsJson = False,
) -> None:
    """Score a bundle on labelled rows."""
    reading = given_of(text=text, label=label, encoding=encoding, delimiter=delimiter or None)
    with Screen(as_json=as_json):
        from penjing.jobs.evaluate import evaluate as job

        found = job(run, data if len(data) > 1 else data[0], base=base, drop_empty=drop_empty, **reading)
    (print_json if as_json else print_scores)(found)


def predict(
    run: Folder,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXTS]...",
            help="texts, or one file of texts; standard input, a line a text, when `-` or none",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="column of the text, when a file is given")] = None,
    drop_empty: Annotated[
        bool, typer.Option("--drop-empty", help="leave out rows of a file without text, and say how many")
    ] = False,
    with_: Annotated[
        Path | None, typer.Option("--with", help="a bundle of `tag` that finds the entities to relate")
    ] = None,
    schema: Schema = None,
    regex: Regex = None,
    choices: Choices = None,
    base: BaseFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="with --json: the scores of every label")] = False,
) -> None:
    """Answer texts, a file of texts, or standard input."""
    with Screen(quiet=True, as_json=as_json):
        texts = [] if texts == ["-"] else texts
        if scores and not as_json:
            raise SpecError(
                "`--scores` adds to the JSON output; `--json` is not given. Give both, or neither."
            )
        if not texts and sys.stdin.isatty():
            raise SpecError(
                "Texts were wanted; none are given. Give texts, a file, or lines on standard input."
            )
        form = form_given(schema, regex, choices)
        from penjing.bundle import load
        from penjing.jobs.predict import answers_to

        for one in answers_to(
            texts,
            sys.stdin.buffer,
            lambda: load(run, base=base).formed(form) if form else load(run, base=base),
            finder=(lambda: load(with_)) if with_ else None,
            tell=Screen(quiet=bool(texts) and not drop_empty).tell,
            warn=Screen().tell,
            **given_of(text=text, drop_empty=drop_empty or None),
        ):
            if as_json:
                kept = one.answer if scores else {k: v for k, v in one.answer.items() if k != "scores"}
                print_json_line({"text": one.text, **kept})
            else:
                typer.echo(one.line)


def report(
    run: Annotated[Path, typer.Argument(help="run folder")],
    language: Annotated[str | None, typer.Option(help="en or zh")] = None,
    show: Annotated[bool, typer.Option("--open/--no-open", help="open it in a browser")] = True,
) -> None:
    """Write the run's report (one HTML file) and open it in a browser."""
    with Screen(quiet=True):
        from penjing.jobs.report import report as job

        path = job(run, language=language)
    typer.echo(str(path))
    if show and sys.stdout.isatty():
        typer.launch(path.resolve().as_uri())


def merge(
    run: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the new bundle")],
    base: BaseFolder = None,
) -> None:
    """Write a bundle with its adapter merged into the base: one set of weights that needs no base."""
    with Screen(quiet=True):
        from penjing.jobs.merge import merge as job

        typer.echo(str(job(run, out, base=base).folder))


def demo(
    out: Annotated[str, typer.Option("--out", help="folder that holds the runs")] = "runs",
    language: Annotated[str, typer.Option(help="language of the report: en or zh")] = "en",
) -> None:
    """The main job on the embedded support desk: LoRA and full tuning beside baseline and untuned base."""
    with Screen() as screen:
        from penjing.jobs.demo import demo as job

        found = job(out=out, language=language, tell=screen.tell)
    print_demo(found)


# In the order of a model's life, which is that of `penjing --help`.
for verb in (
    demo, check, plan, list_, show, tune, search, pretrain, evaluate, predict, report, selfcheck, compress,
    merge, export, index, find, mine, sentences, serve, promote, roll_back, watch, update, export_log,
):  # fmt: skip
    app.command("list" if verb is list_ else None)(verb)
for group in (corpus, tokenizer, traffic, keys):
    app.add_typer(group)


def main() -> None:
    """Entry point of the command `penjing`."""
    from penjing.threads import wait_without_spinning

    sys.path.append(os.getcwd())  # a dotted plug-in may lie in the present folder, as with `python -m`
    wait_without_spinning()
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
    ):
        os.environ.setdefault(name, value)
    app()
