"""The verbs of search: `index` a corpus, `find` in it, `mine` hard negatives, export `sentences`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson
from penjing.errors import SpecError
from penjing.screen import Screen, print_hits, print_json

Run = Annotated[Path, typer.Argument(help="run or bundle folder that embeds texts")]
Data = Annotated[list[str], typer.Option("--data", help="file, folder, glob")]
Text = Annotated[str | None, typer.Option("--text", help="column of the text, when it is not found")]
Base = Annotated[str | None, typer.Option("--base", help="where the bundle's base is, if it has moved")]


def index(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the index")],
    graph: Annotated[
        bool, typer.Option("--graph", help="with FAISS's HNSW, for very large corpora (penjing[index])")
    ] = False,
    text: Text = None,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Embed the texts of a corpus once, to search in."""
    with Screen(as_json=as_json) as screen:
        from penjing.jobs.index import index as job

        made = job(run, _one(data), out, graph=graph, text=text, base=base, tell=screen.tell)
    if as_json:
        print_json({"index": str(out), **made.card})
    else:
        typer.echo(f"{len(made):,} texts of {made.card['width']} numbers each in {out}")


def find(
    index: Annotated[Path, typer.Argument(help="folder that `penjing index` wrote")],
    queries: Annotated[list[str], typer.Argument(help="what to look for")],
    top: Annotated[int, typer.Option("--top", help="texts a query")] = 10,
    run: Annotated[
        Path | None, typer.Option("--run", help="bundle that made the index, if it has moved")
    ] = None,
    rerank: Annotated[
        Path | None, typer.Option("--rerank", help="bundle of task pair that orders the nearest anew")
    ] = None,
    among: Annotated[int, typer.Option("--among", help="how many it orders")] = 50,
    graph: Annotated[bool, typer.Option("--graph", help="by the graph: quicker, not always exact")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the texts of an index that are nearest to each query."""
    with Screen(quiet=True, as_json=as_json):
        if top < 1:
            raise SpecError(f"`--top` must be at least 1; it is {top}. 10 is usual.")
        from penjing.bundle import load
        from penjing.jobs.index import opened

        place = opened(index)
        judge = load(rerank) if rerank else None
        bundle = load(run or place.card["model"])
        found = place.search(bundle, queries, top, exact=not graph, rerank=judge, among=among)
    shown: list[dict[str, Any]] = [
        {"query": query, "hits": [vars(hit) for hit in hits]}
        for query, hits in zip(queries, found, strict=True)
    ]
    (print_json if as_json else print_hits)(shown)


def mine(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines to write")],
    negatives: Annotated[int, typer.Option("--negatives", help="at most so many a row")] = 4,
    skip: Annotated[int, typer.Option("--skip", help="leave out so many of the nearest")] = 0,
    margin: Annotated[
        float, typer.Option("--margin", help="no negative is nearer than this share of the positive")
    ] = 0.95,
    text: Annotated[str | None, typer.Option("--text", help="anchor and positive, as a+b")] = None,
    base: Base = None,
) -> None:
    """Write rows of anchors and positives with the hard negatives that a model finds."""
    with Screen():
        from penjing.jobs.mine import mine as job

        n = job(run, _one(data), out, negatives=negatives, skip=skip, margin=margin, text=text, base=base)
    typer.echo(f"{n:,} hard negatives beside the rows in {out}")


def sentences(
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")],
    base: Base = None,
) -> None:
    """Write a bundle that embeds texts as sentence-transformers reads it."""
    with Screen():
        from penjing.jobs.sentences import sentences as job

        place = job(run, out, base=base)
    typer.echo(f"SentenceTransformer({str(place)!r}) opens it")


def _one(data: list[str]) -> str | list[str]:
    return data if len(data) > 1 else data[0]
