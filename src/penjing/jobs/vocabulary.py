"""Tokenizers as jobs: learn one from a corpus, compare some on texts, teach one the words of a domain."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from penjing.corpus.corpus import MANIFEST, open_corpus
from penjing.data.passages import files_of, passages, passed_over
from penjing.data.vocab.learn import learn
from penjing.data.vocab.measure import batched, measure
from penjing.data.vocab.settings import settled
from penjing.errors import DataError
from penjing.files import new_folder, refuse_taken, write_json
from penjing.jobs.news import News, Tell, silent
from penjing.models.extend import Word, extend, worth
from penjing.models.load import find, tokenizer_at
from penjing.plural import counted

CARD = "tokenizer_card.json"
Source = str | Path | Sequence[str | Path]


def train_tokenizer(
    source: Source,
    out: str | Path,
    *,
    text: str | None = None,
    encoding: str | None = None,
    tell: Tell = silent,
    **asked: Any,
) -> dict[str, Any]:
    """Learn a tokenizer from files and save it in transformers' format; gives its card.

    text: column of tables. encoding: of the files. Other keywords are those of `data.vocab.settings.settled`.

    Raises:
        DataError: no text.
        SpecError: settings that cannot be, a vocabulary without room, or a folder that holds something else.
    """
    settings = settled(**asked)
    place = Path(out)
    refuse_taken(place, CARD)
    files = _places(source, tell)
    tell(News("stage", f"learning a tokenizer ({settings.kind}) from {counted(len(files), 'file')}"))
    began = time.perf_counter()
    made = learn(lambda: (passage for _, passage in _texts(files, text, encoding)), settings)
    for note in made.notes:
        tell(News("note", note))
    card = {
        "kind": settings.kind,
        "family": settings.family,
        "ids": len(made.tokenizer),
        "settings": {key: value for key, value in vars(settings).items() if key not in ("kind", "family")},
        "corpus": {"files": files, "texts": made.n_texts, "characters": made.n_characters},
        "alphabet": made.alphabet,
        "rare": made.rare,
        "seconds": round(time.perf_counter() - began, 2),
        "notes": list(made.notes),
    }
    with new_folder(place) as aside:
        made.tokenizer.save_pretrained(aside)
        write_json(aside / CARD, card)
    return card


def _places(source: Source, tell: Tell) -> list[str]:
    """Prepared corpora as they are, and the files of everything else; what of folders is not read is told."""
    parts = [source] if isinstance(source, str | Path) else list(source)
    corpora = [one for one in parts if (Path(one) / MANIFEST).is_file()]
    found = [[str(one)] if one in corpora else files_of(one) for one in parts]
    if left := passed_over([one for one in parts if one not in corpora]):
        said = f"{counted(len(left), 'file')} not read, empty or of another kind, such as {left[0]}"
        tell(News("note", f"{said}; `penjing corpus prepare` reads pages, PDFs and code"))
    return [name for names in found for name in names] or files_of([])


def _texts(places: list[str], text: str | None, encoding: str | None) -> Iterator[tuple[str, str]]:
    """(source, text) of files; of a prepared corpus its training documents: what is held out stays unseen."""
    for place in places:
        if not (Path(place) / MANIFEST).is_file():
            yield from passages(place, text=text, encoding=encoding)
        else:
            yield from ((source, body) for body, source in open_corpus(place).texts("train"))


def report_tokenizers(
    names: Sequence[str],
    source: Source,
    *,
    text: str | None = None,
    encoding: str | None = None,
    tell: Tell = silent,
) -> list[dict[str, Any]]:
    """Compare tokenizers (folders, or bases) on texts: a row for each, by all, by language and by source.

    Raises:
        DataError: no text. NotSupported: a name that is no tokenizer.
    """
    tokenizers = {name: tokenizer_at(_place_of(name)) for name in names}
    files = _places(source, tell)
    tell(News("stage", f"reading {counted(len(files), 'file')} with {len(names)} tokenizers"))
    found = measure(tokenizers, _texts(files, text, encoding))
    first = next(iter(found.values()))
    order = sorted(first.groups, key=lambda key: (("all", "language", "source").index(key[0]), key[1]))
    if not order:
        raise DataError(
            f"Texts were wanted in {', '.join(files[:3])}; there are only empty lines. Give others with "
            "`--data`."
        )
    return [
        {
            "by": by,
            "of": group,
            "tokenizer": name,
            "ids": len(tokenizers[name]),
            **found[name].at(by, group).plain(),
        }
        for by, group in order
        for name in names
    ]


def _place_of(name: str) -> Path:
    """A tokenizer's folder, or the folder of a base."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else find(name)


def extend_tokenizer(
    name: str,
    source: Source,
    out: str | Path,
    *,
    n_words: int = 500,
    min_count: int = 5,
    text: str | None = None,
    encoding: str | None = None,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Add the words of a domain to a base and its tokenizer; says which, what is saved, and that other texts
    read as before.

    Raises:
        DataError: no text, or no word worth an id.
        NotSupported: no such base.
        SpecError: the folder holds something else.
    """
    place = Path(out)
    refuse_taken(place)
    files = _places(source, tell)
    old = tokenizer_at(find(name))

    def lines() -> Iterator[str]:
        for _, passage in _texts(files, text, encoding):
            yield from passage.splitlines()

    tell(News("stage", f"looking for words that {name} spells in many pieces"))
    found = worth(old, lines(), n_words=n_words, min_count=min_count)
    tell(News("stage", f"adding {counted(len(found), 'word')}"))
    sizes = extend(name, place, found)
    words = [_plain(old, one) for one in found]
    return {**sizes, "words": words, **_compared(old, tokenizer_at(place), lines(), found)}


def _plain(tokenizer: Any, one: Word) -> dict[str, Any]:
    pieces = tokenizer.convert_ids_to_tokens(list(one.pieces))
    return {**vars(one), "pieces": pieces}


def _compared(old: Any, new: Any, lines: Iterable[str], found: list[Word]) -> dict[str, int]:
    """Tokens of the texts before and after; of the lines without a new word, how many read differently."""
    added = {new.convert_tokens_to_ids(one.word) for one in found}
    sums = {"tokens_before": 0, "tokens": 0, "lines_without": 0, "changed": 0}
    for part in batched(line for line in lines if line.strip()):
        pairs = (tokenizer(list(part), add_special_tokens=False)["input_ids"] for tokenizer in (old, new))
        for before, after in zip(*pairs, strict=True):
            sums["tokens_before"] += len(before)
            sums["tokens"] += len(after)
            if added.isdisjoint(after):
                sums["lines_without"] += 1
                sums["changed"] += before != after
    return sums
