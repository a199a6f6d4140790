"""The verbs of what follows once a model is live: `watch` its world, `update` it, keep its `traffic`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson, BaseFolder, given_of
from penjing.errors import SpecError
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
        from penjing.jobs.watch_page import refuse_language, write_page

        telling.check_targets(alerts or ())
        refuse_language(language)
        found = job(model, base=base, **how, **given_of(text=text))
        # People first: a file that cannot be written must not keep an alarm from them.
        troubles = telling.alert(found, alerts or ()) if found.moved else []
        if metrics:
            telling.write_metrics(found, metrics)
        if page:
            write_page(found, page, language=language)
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


def update(
    spec: Annotated[Path, typer.Argument(help="YAML file of the update: docs/update.md")],
    if_moved: Annotated[
        bool, typer.Option("--if-moved", help="only where `penjing watch` finds that the world moved")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="the rounds so far")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach the live model what came since; it is replaced only by a better one. Exit code 3: refused."""
    with Screen(as_json=as_json) as screen:
        if if_moved and history:
            raise SpecError("`--if-moved` and `--history` exclude each other. Give one of them.")
        from penjing.chains import rounds
        from penjing.chains.update import shown
        from penjing.chains.update import update as job
        from penjing.chains.update_spec import read

        asked = read(spec)
        if history:
            _print_history(rounds.history(Path(asked.out)), as_json)
            return
        if if_moved and not _moved(asked, as_json):
            return
        done = job(asked, tell=screen.tell)
    if as_json:
        print_json({**vars(done), "bars": [vars(bar) for bar in done.bars], "sentence": done.sentence})
    else:
        if done.bars:
            print_table(["", "what", "wanted", "found"], shown(done.bars))
        typer.echo(done.sentence)
    raise typer.Exit(MOVED if done.what == "refused" else 0)


def _moved(asked: Any, as_json: bool) -> bool:
    from penjing.jobs.watch import watch as look

    if asked.traffic is None:
        raise SpecError(
            "`--if-moved` looks at `traffic`; the update names no store. Add one, or leave it out."
        )
    found = look(asked.model, traffic=asked.traffic, base=asked.base)
    if not found.moved:
        (print_json if as_json else typer.echo)(found.plain() if as_json else found.sentence)
    return found.moved


def _print_history(lines: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(lines)
        return
    rows = [
        [
            str(line["at"]),
            str(line.get("round") or "-"),
            str(line["what"]),
            str(line.get("version") or "-"),
            str(line.get("rows") or "-"),
            ", ".join(line.get("failed") or ()),
        ]
        for line in lines
    ]
    print_table(["at", "round", "what", "live", "rows", "failed"], rows)


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
        from penjing.serve.label_tools import keep_labels, read_labels
        from penjing.serve.traffic import opened

        found = read_labels(labels)
        with opened(store) as kept:
            lost = keep_labels(kept, found, by=by or labels.name)
    typer.echo(f"{len(found) - len(lost):,} labels kept")
    if lost:
        typer.echo(f"· {len(lost):,} of requests that the store does not hold, such as {lost[0]}", err=True)


@traffic.command()
def forget(
    store: Store,
    days: Annotated[float | None, typer.Option("--days", help="older than so many days")] = None,
    most: Annotated[int | None, typer.Option("--most", help="the oldest beyond so many")] = None,
) -> None:
    """Remove old requests, with their feedback; for cron."""
    with Screen(quiet=True):
        from penjing.serve.traffic import opened

        if days is None and most is None:
            raise SpecError(
                "What to forget was wanted; neither `--days` nor `--most` is given. Say such as `--days 90`."
            )
        with opened(store) as kept:
            n = kept.forget(days=days, most=most)
    typer.echo(f"{n:,} requests forgotten")
