"""`penjing tokenizer …`: learn tokenizers, compare them, teach them words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penjing.screen import Screen, print_json, print_table

tokenizer = typer.Typer(
    name="tokenizer",
    help="Learn tokenizers, compare them, teach them the words of a domain.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Sources = Annotated[list[str], typer.Argument(help="files, folders, patterns: text, JSON lines, Parquet, …")]
Column = Annotated[str | None, typer.Option("--text", help="column of the text, in tables")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="such as gb18030; found out when not given")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@tokenizer.command()
def train(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the new tokenizer")],
    kind: Annotated[str, typer.Option("--kind", help="bpe, wordpiece, unigram or char")] = "bpe",
    vocab: Annotated[int | None, typer.Option("--vocab", help="ids in all; 8,000 when not given")] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", help="special words: bert, roberta, gpt, llama, chat, t5, marian, plain"),
    ] = None,
    lower: Annotated[bool, typer.Option("--lower/--cased", help="all text in lower case")] = False,
    normalize: Annotated[str | None, typer.Option("--normalize", help="Unicode: none, nfc, nfkc")] = None,
    chinese: Annotated[
        str | None, typer.Option("--chinese", help="pieces within characters, words or runs")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option("--coverage", help="share of characters that are known; 0.9995")
    ] = None,
    min_count: Annotated[int, typer.Option("--min-count", help="occurrences that make a piece")] = 2,
    text: Column = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Learn a tokenizer from a corpus; saved as transformers reads it."""
    with Screen(as_json=as_json) as screen:
        from penjing.jobs.vocabulary import train_tokenizer as job

        card = job(
            sources,
            out,
            kind=kind,
            vocab=vocab,
            family=family,
            lower=lower,
            form=normalize,
            chinese=chinese,
            coverage=coverage,
            min_count=min_count,
            text=text,
            encoding=encoding,
            tell=screen.tell,
        )
    if as_json:
        print_json(card)
        return
    corpus = card["corpus"]
    rows = [
        ["ids", f"{card['ids']:,}"],
        ["family", card["family"]],
        ["learnt from", f"{corpus['characters']:,} characters of {len(corpus['files']):,} files"],
        ["time", f"{card['seconds']:.1f} s"],
        ["folder", str(out)],
    ]
    print_table([card["kind"], ""], rows)
