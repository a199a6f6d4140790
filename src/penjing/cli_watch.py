"""The verbs of what happens after a model went live: `watch` its world, look after its `traffic`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson, BaseFolder, given_of
from penjing.screen import Screen, print_json, print_table

MOVED = 3  # exit code; 0: nothing moved, 1: it could not be looked at, 2: the command line was wrong

Model = Annotated[
    Path, typer.Argument(help="run, bundle, or a model's folder in a registry: its live version")
]
Store = Annotated[str, typer.Argument(help="traffic.db, sqlite:///FILE or postgresql://USER@HOST/NAME")]

traffic = typer.Typer(
    name="traffic", help="Look after a store of traffic: count, export, import, forget.", no_args_is_help=True
)


def watch(
    model: Model,
    traffic: Annotated[str | None, typer.Option("--traffic", help="store of what was asked")] = None,
    data: Annotated[str | None, typer.Option("--data", help="or a file of rows that came")] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="rows to compare with, in place of those of the bundle")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", help="newest rows looked at; 500 if not given")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="chance of a false alarm in --looks looks; 0.05")
    ] = None,
    looks: Annotated[int | None, typer.Option("--looks", help="looks in a row that it holds for; 30")] = None,
    least: Annotated[
        float | None, typer.Option("--least", help="share of rows below which a change is no alarm; 0.1")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="column of the text, of files")] = None,
    alerts: Annotated[
        list[str] | None,
        typer.Option("--alert", help="where to tell what moved: log:FILE, https://…, smtp://HOST?to=…"),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", help="file to write for Prometheus's textfile collector")
    ] = None,
    page: Annotated[Path | None, typer.Option("--page", help="HTML page to write, with the pictures")] = None,
    language: Annotated[str, typer.Option("--language", help="of the page: en or zh")] = "en",
    base: BaseFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say whether the world moved since a model was proved; exit code 3 when it did, 0 when not."""
    how = given_of(
        traffic=traffic, data=data, reference=reference, last=last, alpha=alpha, looks=looks, least=least
    )
    with Screen(as_json=as_json):
        from penjing.jobs import alerts as telling
        from penjing.jobs.watch import said
        from penjing.jobs.watch import watch as job
        from penjing.jobs.watch_page import write_page

        telling.check_targets(alerts or ())
        found = job(model, base=base, **how, **given_of(text=text))
        if page:
            write_page(found, page, language=language)
        if metrics:
            telling.write_metrics(found, metrics)
        troubles = telling.alert(found, alerts or ()) if found.moved else []
    if as_json:
        print_json({**found.plain(), "alerts_failed": troubles})
    else:
        typer.echo(found.sentence)
        if found.verdict:
            rows = [
                [
                    "moved" if check.moved else "",
                    said(check),
                    f"{check.effect:.2f}",
                    f"{check.p:.2g}",
                ]
                for check in found.verdict.checks
            ]
            print_table(["", "check", "effect", "p"], rows)
        for note in (*found.notes, *troubles):
            typer.echo(f"· {note}", err=True)
    raise typer.Exit(MOVED if found.moved else 0)


@traffic.command()
def count(store: Store, as_json: AsJson = False) -> None:
    """How many requests are kept, and how many have feedback."""
    with Screen(quiet=True, as_json=as_json):
        from penjing.serve.traffic import opened

        with opened(store) as kept:
            found = kept.count()
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['requests']:,} requests, {found['labelled']:,} with feedback")


@traffic.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Option("--out", "-o", help="file to write")],
    form: Annotated[str, typer.Option("--form", help="jsonl or label-studio")] = "jsonl",
    uncertain: Annotated[
        int | None, typer.Option("--uncertain", help="so many of which the model was least sure")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="requests of this model only")] = None,
    labelled: Annotated[
        bool | None, typer.Option("--labelled/--unlabelled", help="those with feedback, or without")
    ] = None,
) -> None:
    """Write requests to a file, such as the ones to label first, for a label tool."""
    with Screen(quiet=True):
        from penjing.serve.label_tools import write_rows
        from penjing.serve.traffic import opened

        with opened(store) as kept:
            how: dict[str, Any] = given_of(uncertain=uncertain, model=model, labelled=labelled)
            n = write_rows(kept.rows(**how), out, form=form)
    typer.echo(f"{n:,} requests in {out}")


@traffic.command("import")
def import_(
    store: Store,
    labels: Annotated[
        Path, typer.Argument(help="what a label tool wrote: JSON lines, or Label Studio's JSON")
    ],
    by: Annotated[str, typer.Option("--by", help="who labelled them")] = "",
) -> None:
    """Keep labels as feedback to the requests they are of."""
    with Screen(quiet=True):
        from penjing.serve.label_tools import read_labels
        from penjing.serve.traffic import opened

        found = read_labels(labels)
        with opened(store) as kept:
            for id, truth in found.items():
                kept.feedback(id, truth, by=by or labels.name)
    typer.echo(f"{len(found):,} labels kept")


@traffic.command()
def forget(
    store: Store,
    days: Annotated[float | None, typer.Option("--days", help="older than so many days")] = None,
    most: Annotated[int | None, typer.Option("--most", help="the oldest beyond so many")] = None,
) -> None:
    """Remove old requests, with their feedback; for cron."""
    with Screen(quiet=True):
        from penjing.errors import SpecError
        from penjing.serve.traffic import opened

        if days is None and most is None:
            raise SpecError(
                "What to forget was wanted; neither `--days` nor `--most` is given. Say such as `--days 90`."
            )
        with opened(store) as kept:
            n = kept.forget(days=days, most=most)
    typer.echo(f"{n:,} requests forgotten")
