"""Teach a base the words of a domain: words it spells in many pieces become one, and begin as their mean."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.data.tokenize import backend_of
from penjing.data.vocab.segment import has_han, words
from penjing.errors import DataError
from penjing.files import new_folder
from penjing.models.checkpoint import refuse
from penjing.models.load import find, quiet, tokenizer_at

_LETTERS = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Word:
    """A word worth an id of its own."""

    word: str
    count: int
    pieces: tuple[int, ...]  # ids that spelt it
    saved: int  # tokens of the corpus
    lost: int  # tokens of the corpus that were unknown


def worth(tokenizer: Any, lines: Iterable[str], *, n_words: int, min_count: int = 5) -> list[Word]:
    """The words whose pieces cost most: tokens saved and unknown tokens, over all occurrences, most first.

    A word is a run of letters, or what the segmenter cuts out of Chinese; numbers never are.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        spans = (line[begin:end] for begin, end in words(line))
        counts.update(_as_read(tokenizer, word) for word in spans if _LETTERS.fullmatch(word))
    found = []
    for word, count in counts.items():
        if count >= min_count and len(word) > 1:
            pieces = pieces_of(tokenizer, word)
            saved = count * (len(pieces) - _price(tokenizer, word))
            lost = count * pieces.count(tokenizer.unk_token_id)
            if saved + lost > 0:
                found.append(Word(word, count, tuple(pieces), saved, lost))
    return sorted(found, key=lambda one: (-one.saved - one.lost, one.word))[:n_words]


def _as_read(tokenizer: Any, word: str) -> str:
    """In lower case where the tokenizer makes it so; Chinese as it is."""
    backend = backend_of(tokenizer)
    rule = None if backend is None else backend.normalizer
    return word if rule is None or has_han(word) else rule.normalize_str(word).strip()


def pieces_of(tokenizer: Any, word: str) -> list[int]:
    """Ids that spell a word inside a text: after a space, or for Chinese by itself."""
    if has_han(word):
        return _ids(tokenizer, word)
    return _ids(tokenizer, f"a {word}")[len(_ids(tokenizer, "a")) :]


def _price(tokenizer: Any, word: str) -> int:
    """Tokens of a word with an id of its own; in byte-level BPE and Unigram the space before is another."""
    return 1 if has_han(word) else 1 + len(_ids(tokenizer, "a ")) - len(_ids(tokenizer, "a"))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def extend(name: str, out: Path, found: list[Word]) -> dict[str, int]:
    """Write the base `name` with these words to a folder; gives ids and rows before and after.

    A new word's row is the mean of its pieces' rows, at the input and, where that is another table, at the
    output with its bias. Every other weight is as it was; files beside weights and tokenizer are copied.

    Raises:
        NotSupported: no such base, or one whose files are refused.
        DataError: there is no word.
    """
    if not found:
        raise DataError(
            "Words that a base spells in several pieces were wanted; the texts have none that occurs often "
            "enough. Give more text of the domain, or lower `--min-count`."
        )
    folder = find(name)
    refuse(folder, name)
    with quiet():
        tokenizer, model = tokenizer_at(folder), _whole(folder)
        before = {"ids": len(tokenizer), "rows": int(model.get_input_embeddings().weight.shape[0])}
        tokenizer.add_tokens([_token(one.word) for one in found])
        ids = [tokenizer.convert_tokens_to_ids(one.word) for one in found]
        rows = max(before["rows"], max(ids) + 1)
        model.resize_token_embeddings(rows, mean_resizing=False)
        for table in _tables(model):
            _begin_as_means(table, ids, found)
        with new_folder(out) as aside:
            for path in folder.iterdir():
                if path.is_dir() or (path.suffix == ".json" and "tokenizer" not in path.name):
                    (shutil.copytree if path.is_dir() else shutil.copy2)(path, aside / path.name)
            (aside / "model.safetensors.index.json").unlink(missing_ok=True)
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
    return {"ids_before": before["ids"], "ids": len(tokenizer), "rows_before": before["rows"], "rows": rows}


def _token(word: str) -> Any:
    """As an id of its own: Latin words between other signs only, Chinese ones anywhere."""
    from tokenizers import AddedToken

    han = has_han(word)
    return AddedToken(word, single_word=not han, normalized=not han, special=False)


def _whole(folder: Path) -> Any:
    """The model with every head that its weights were saved with, in the type they have."""
    import transformers

    names = json.loads((folder / "config.json").read_text("utf-8")).get("architectures") or ["AutoModel"]
    kind = getattr(transformers, names[0], transformers.AutoModel)
    return kind.from_pretrained(folder, dtype="auto", use_safetensors=True)


def _tables(model: Any) -> list[nn.Parameter]:
    """What has a row for each word: input, output and its bias; one that is shared stands once."""
    output = model.get_output_embeddings()
    tables = [
        model.get_input_embeddings().weight,
        getattr(output, "weight", None),
        getattr(output, "bias", None),
    ]
    return list({id(table): table for table in tables if table is not None}.values())


def _begin_as_means(table: nn.Parameter, ids: list[int], found: list[Word]) -> None:
    with torch.no_grad():
        for i, one in zip(ids, found, strict=True):
            table[i] = table[list(one.pieces)].float().mean(0).to(table.dtype)
