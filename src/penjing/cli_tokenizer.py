"""`penjing tokenizer …`: learn tokenizers, compare them, teach them words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penjing.cli_options import AsJson
from penjing.plural import counted
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
        ["learnt from", f"{corpus['characters']:,} characters of {counted(len(corpus['files']), 'file')}"],
        ["time", f"{card['seconds']:.1f} s"],
        ["folder", str(out)],
    ]
    print_table([card["kind"], ""], rows)


@tokenizer.command()
def report(
    names: Annotated[list[str], typer.Argument(help="folders of tokenizers, or bases")],
    data: Annotated[list[str], typer.Option("--data", help="texts: files, folders, patterns")],
    text: Column = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Compare tokenizers on texts: tokens a word, what is unknown, by language and by source."""
    with Screen(as_json=as_json) as screen:
        from penjing.jobs.vocabulary import report_tokenizers as job

        found = job(names, data, text=text, encoding=encoding, tell=screen.tell)
    if as_json:
        print_json(found)
        return
    head = ["of", "tokenizer", "ids", "tokens/word", "tokens/char", "bytes/token", "unknown", "exact lines"]
    rows = [
        [
            one["of"] or "all",
            one["tokenizer"],
            f"{one['ids']:,}",
            f"{one['tokens_a_word']:.3f}",
            f"{one['tokens_a_character']:.3f}",
            f"{one['bytes_a_token']:.2f}",
            f"{one['unknown_share']:.3%}",
            f"{one['exact_share']:.1%}",
        ]
        for one in found
    ]
    print_table(head, rows)


@tokenizer.command()
def extend(
    base: Annotated[str, typer.Argument(help="a base with weights: preset, folder or hub name")],
    data: Annotated[list[str], typer.Option("--data", help="texts of the domain")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the new base")],
    words: Annotated[int, typer.Option("--words", help="most words to add")] = 500,
    min_count: Annotated[int, typer.Option("--min-count", help="occurrences that a word must have")] = 5,
    text: Column = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Add a domain's words to a base and its tokenizer; each begins as the mean of its pieces."""
    with Screen(as_json=as_json) as screen:
        from penjing.jobs.vocabulary import extend_tokenizer as job

        found = job(
            base,
            data,
            out,
            n_words=words,
            min_count=min_count,
            text=text,
            encoding=encoding,
            tell=screen.tell,
        )
    if as_json:
        print_json(found)
        return
    rows = [
        [one["word"], f"{one['count']:,}", " ".join(one["pieces"]), f"{one['saved']:,}"]
        for one in found["words"][:10]
    ]
    title = f"{counted(len(found['words']), 'word')} added"
    print_table(["word", "occurs", "was", "tokens saved"], rows, title=title)
    before, after = found["tokens_before"], found["tokens"]
    sums = [
        ["tokens before", f"{before:,}"],
        ["tokens now", f"{after:,} ({after / before - 1:+.1%})"],
        ["lines without a new word", f"{found['lines_without']:,}"],
        ["of them read otherwise", f"{found['changed']:,}"],
        ["folder", str(out)],
    ]
    print_table(["the texts", ""], sums)
