"""`penjing corpus …`: raw text to a corpus, and what a corpus holds. Beside `cli.py` and `screen.py` it
prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson, On
from penjing.screen import Screen, print_json, print_table

app = typer.Typer(
    name="corpus",
    help="Raw text to a corpus for pretraining, and what one holds.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def prepare(
    raw: Annotated[
        list[str],
        typer.Argument(help="files, folders, globs, or one YAML spec that names them", show_default=False),
    ],
    out: Annotated[str | None, typer.Option("--out", "-o", help="folder of the corpus")] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", help="keep this one, such as zh, en, code; may be repeated"),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="test set whose text may not be in it; may be repeated"),
    ] = None,
    pii: Annotated[
        str | None, typer.Option("--pii", help="keep, mask or drop personal data and keys")
    ] = None,
    broken: Annotated[str | None, typer.Option("--broken", help="skip or refuse what cannot be read")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="any key, such as twins.near=0.7", metavar="KEY=VALUE")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="as many as cores when not given")
    ] = None,
    on: On = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="throw away what stands in the folder")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say which files would be read as what, read none")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read, normalise, filter, deduplicate and split raw text; run again, it goes on where it was stopped."""
    given: dict[str, Any] = {
        "out": out,
        "pii": pii,
        "broken": broken,
        "against": against,
        "language.keep": languages,
    }
    given = {key: value for key, value in given.items() if value}
    spec = raw[0] if len(raw) == 1 and raw[0].endswith((".yaml", ".yml")) else None
    given |= {} if spec else {"raw": raw}
    with Screen(as_json=as_json) as screen:
        if dry_run:
            from penjing.jobs.corpus import foresee

            _show_plan(foresee(spec, sets=tuple(sets or ()), **given), as_json=as_json)
            return
        from penjing.jobs.corpus import prepare as job

        found = job(
            spec, sets=tuple(sets or ()), processes=processes, on=on, fresh=fresh, tell=screen.tell, **given
        )
    _show(found, as_json=as_json)


@app.command()
def show(
    corpus: Annotated[Path, typer.Argument(help="folder of a corpus, or text as it lies")],
    texts: Annotated[int, typer.Option("--texts", min=0, help="print the first documents, too")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what a corpus holds, and what was dropped for which reason."""
    with Screen(as_json=as_json):
        from itertools import islice

        from penjing.corpus.corpus import open_corpus

        found = open_corpus(corpus)
        first = list(islice(found.texts(), texts))
    _show(found, as_json=as_json, first=first)


def _show_plan(found: dict[str, Any], *, as_json: bool) -> None:
    """What would be read, and with which settings."""
    import yaml

    if as_json:
        print_json(found)
        return
    rows = [
        [name, f"{of['files']:,}", f"{of['bytes'] / 2**20:,.1f}", ", ".join(of["kinds"])]
        for name, of in found["sources"].items()
    ]
    print_table(["source", "files", "MiB", "read as"], rows, title=f"{found['parts']:,} parts")
    typer.echo("")
    typer.echo(yaml.safe_dump(found["settings"], sort_keys=False, allow_unicode=True).rstrip())


def _show(found: Any, *, as_json: bool, first: Sequence[tuple[str, str]] = ()) -> None:
    """What a corpus holds, and the text and source of its first documents."""
    if as_json:
        plain = {"sources": dict(found.weights), "characters": dict(found.characters), "sha256": found.sha256}
        texts = [{"source": source, "text": text} for text, source in first]
        print_json({**(found.manifest or plain), **({"texts": texts} if texts else {})})
        return
    _print_manifest(found)
    for text, source in first:
        typer.echo(f"\n[{source}] {text}")


def _print_manifest(found: Any) -> None:
    manifest = found.manifest
    if not manifest:
        rows = [[name, f"{found.characters[name]:,}", f"{found.weights[name]:.3f}"] for name in found.sources]
        print_table(["source", "bytes", "weight"], rows, title=f"{found.folder}, as it lies")
        return
    rows = [
        [
            name,
            *(f"{one[part]['documents']:,}" for part in ("read", "train", "valid")),
            f"{one['weight']:.3f}",
        ]
        for name, one in manifest["sources"].items()
    ]
    print_table(["source", "read", "train", "valid", "weight"], rows)
    dropped = sorted(manifest["dropped"].items(), key=lambda pair: -pair[1]["documents"])
    typer.echo("")
    print_table(["dropped", "documents"], [[reason, f"{one['documents']:,}"] for reason, one in dropped])
    if manifest["troubles"]:
        typer.echo(
            f"\ncould not be read: {manifest['troubles'][0]}"
            + (f" (and {len(manifest['troubles']) - 1:,} more)" if len(manifest["troubles"]) > 1 else "")
        )
    typer.echo(f"\ncorpus  {found.folder}\nreport  {found.folder / 'report.html'}")
