"""Tokenizers as jobs: learn one from a corpus, compare some on texts, teach one the words of a domain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.data.passages import files_of, passages
from penjing.data.vocab.learn import learn
from penjing.data.vocab.settings import settled
from penjing.errors import SpecError
from penjing.files import new_folder, write_json
from penjing.jobs.news import News, Tell, silent

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
    place = _free(Path(out))
    files = files_of(source)
    tell(News("stage", f"learning a tokenizer ({settings.kind}) from {len(files):,} files"))
    began = time.perf_counter()
    made = learn(lambda: (passage for _, passage in passages(files, text=text, encoding=encoding)), settings)
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


def _free(place: Path) -> Path:
    """The folder, if writing there destroys nothing but an older tokenizer.

    Raises:
        SpecError: it holds something else.
    """
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / CARD).is_file()):
        raise SpecError(
            f"A tokenizer was to be written to {place}; something else is there. Give a new folder with "
            "`--out`."
        )
    return place
