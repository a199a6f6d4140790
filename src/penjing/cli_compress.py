"""The verb `compress`: a tuned run through a chain of compressors, each step weighed and proved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson, BaseFolder
from penjing.screen import Screen, print_json, print_table


def compress(
    run: Annotated[Path, typer.Argument(help="run or bundle folder")],
    steps: Annotated[
        str,
        typer.Option("--with", help='such as "trim_vocabulary>int8", or a YAML file', metavar="STEPS"),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder of the steps; RUN/compressed if not given")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="labelled rows to judge on; else the run's validation rows")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help='such as "lose 1, speed 3"; says which model to take')
    ] = None,
    lose: Annotated[
        float, typer.Option("--lose", help="points of the score that a step may lose, else it is refused")
    ] = 1.0,
    alike: Annotated[
        float | None, typer.Option("--alike", help="least percent of rows answered as the original does")
    ] = None,
    allow: Annotated[bool, typer.Option("--allow", help="keep a step that loses more, and say so")] = False,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="measure the peak memory of each step")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="of the train rows that are looked at")] = 0,
    base: BaseFolder = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, say which steps there are, make none")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a tuned model smaller, step by step; each step is a bundle, weighed and held against the original.

    Asked again, it goes on where it was stopped.
    """
    given: dict[str, Any] = {"out": out, "rows": rows, "budget": budget, "seed": seed}
    given |= {"base": base, "device": device}
    given |= {"lost": lose / 100, "alike": None if alike is None else alike / 100}
    with Screen(as_json=as_json) as screen:
        if dry_run:
            from penjing.chains.compress import plan

            _print_plan(plan(run, steps, **given), as_json)
            return
        from penjing.chains.compress import compress as job

        done = job(run, steps, **given, allow=allow, memory=memory, tell=screen.tell)
        if as_json:
            print_json(done.result)
            return
        _print_models(done)


def _print_plan(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for number, step in enumerate(found, 1):
        there = "there already" if step["done"] else "to be made"
        typer.echo(f"{number}. {step['said']}\n   {step['folder']} ({there})")


def _print_models(done: Any) -> None:
    from penjing.chains.weighed import points
    from penjing.jobs.numbers import IN_PERCENT

    name, first = done.result["score"], done.original
    unit = "" if name in IN_PERCENT else " %"
    head = ["model", "MiB", "1 row", f"{name}", "lost", "speed", "parity"]
    rows = [["original", *_cells(first, first), "", "", ""]]
    for step in done.steps:
        one = step.weighed
        lost = f"{points(one, first, name):+z.2f}{unit}"
        held = "held" if step.held else "outside"
        rows.append([step.said, *_cells(one, first), lost, f"{one.speed:.2f}x", held])
    print_table(head, rows)
    typer.echo(str(done.folder / "compress.html"))


def _cells(one: Any, first: Any) -> list[str]:
    return [f"{one.n_bytes / 2**20:.1f}", f"{one.latency_ms['1']:.2f} ms", f"{one.score:.4f}"]
