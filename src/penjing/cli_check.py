"""`penjing check` and `selfcheck`: what can go wrong, and whether the arithmetic keeps its promises."""

from __future__ import annotations

from typing import Annotated

import typer

from penjing.cli_options import (
    AsJson,
    BaseName,
    LabelColumn,
    MethodName,
    Set,
    SpecFile,
    TaskName,
    TestRows,
    TextColumn,
    TrainRows,
    ValidRows,
    given_of,
)
from penjing.screen import Screen, failed, print_batch, print_findings, print_json, print_promises


def check(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    valid: ValidRows = None,
    test: TestRows = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    task: TaskName = None,
    method: MethodName = None,
    sets: Set = None,
    batch: Annotated[
        bool, typer.Option("--show-batch", help="the first rows as the model reads them, and what is learned")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for everything that can go wrong, before a weight is loaded."""
    given = given_of(
        base=base, train=train, valid=valid, test=test, text=text, label=label, task=task, method=method
    )
    with Screen(as_json=as_json) as screen:
        from penjing.jobs import check as job

        found = job.check(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
        shown = job.show_batch(spec, sets=tuple(sets or ()), **given) if batch and not failed(found) else []
    if as_json:
        print_json({"findings": [vars(f) for f in found], "batch": [vars(s) for s in shown]})
    else:
        print_findings(found)
        print_batch(shown)
    raise typer.Exit(1 if failed(found) else 0)


def selfcheck(
    spec: SpecFile = None,
    base: BaseName = None,
    train: TrainRows = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    task: TaskName = None,
    method: MethodName = None,
    sets: Set = None,
    as_json: AsJson = False,
) -> None:
    """Try five promises on your own spec: accumulation, packing, resuming, repeating, saving."""
    given = given_of(base=base, train=train, text=text, label=label, task=task, method=method)
    with Screen(as_json=as_json) as screen:
        from penjing.jobs.selfcheck import selfcheck as job

        found = job(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
    if as_json:
        print_json([{**vars(d), "held": d.held} for d in found])
    else:
        print_promises(found)
    raise typer.Exit(0 if all(d.held for d in found) else 1)
