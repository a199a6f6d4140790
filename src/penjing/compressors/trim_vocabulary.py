"""Words that a task never reads go: their rows leave the word table, and the tokenizer forgets them.

Half of a small encoder are rows of words (MiniLM: 47 of 91 MB), and a task's texts use a tenth of them
(Abdaoui et al. 2020, arXiv 2010.05609; TextPruner, Yang et al. 2022).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.data.passages import passages
from penjing.data.tokenize import tokenize
from penjing.data.vocab.trim import Trimmed, trim
from penjing.errors import NotSupported, SpecError
from penjing.models.word_rows import ids_in_config, keep_words, rows_kept, rows_of
from penjing.records import Part, Tokens

CHUNK = 8192  # texts at once
MARKED = re.compile(r"\[.*\]|<.*>")


def trim_vocabulary(*, text: str | None = None, common: int = 0, rows: bool = True) -> Compressor:
    """Keep the words of the rows and of a text, special words, and the characters that spell any other.

    Texts of kept words are read as before, and their answers stay to the bit, but for models that say words
    or ask in words: those are likelier where there are fewer. A text with another word is spelt in smaller
    pieces, and its answer may change: give texts such as those of the days to come as `text`.

    text: a file, folder or pattern of more texts whose words are kept. common: words of the lowest ids that
    stay whether met or not; WordPiece and BPE have them by frequency. rows: keep the words of the train rows.
    """
    if common < 0:
        raise SpecError(f"`trim_vocabulary.common` counts words, 0 or more; it is {common}. 5000 is usual.")
    if not rows and text is None:
        raise SpecError(
            "`trim_vocabulary` needs texts whose words stay; `rows` is false and there is no `text`. Give a "
            "file as `text`, or leave `rows` as it is."
        )

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        base = held.base
        if base.tokenizer is None:
            raise NotSupported(
                f"Words to trim were wanted; `{base.name}` reads images and has none. Leave out "
                "`trim_vocabulary`."
            )
        trunk, old = base.trunk, held.model.head
        facts: dict[str, Any] = {"words_before": len(base.tokenizer), "rows_before": rows_of(trunk)}
        counts = np.zeros(max(facts.values()), dtype=np.int64)
        for ids in _read(held, rehearsal.part if rows else None, text):
            counts += np.bincount(ids, minlength=len(counts))
        counts[sorted(ids_in_config(trunk))] += 1
        counts[_common(base.tokenizer, common)] += 1
        trimmed = trim(base.tokenizer, np.flatnonzero(counts).tolist())
        made = _with_words(held, trimmed)
        facts["words"] = len(trimmed.kept)
        if made.model.head is not old:
            facts["note"] = "answers are judged against the words kept, no more against all"
        return Shrunk(made, facts, exact=rows and made.model.head is old)

    return Compressor("trim_vocabulary", shrink, wants="texts" if rows else "nothing", rows=None)


def _read(held: Held, part: Part | None, text: str | None) -> Iterator[np.ndarray]:
    """Ids of all that is read: the rows as the model has them, their plain texts, label names, the text."""
    tokenizer = held.base.tokenizer
    plain = lambda texts: tokenize(tokenizer, texts, max_length=1 << 30, cache=False).ids  # noqa: E731
    if part is not None:
        sides: list[Tokens] = [part.tokens] + ([] if part.answers is None else [part.answers])
        yield from (np.asarray(side.ids, dtype=np.int64) for side in sides)
        for at in range(0, len(part.rows), CHUNK):
            yield plain(part.rows.texts[at : at + CHUNK])
    labels = [form for name in held.labels for form in (name, f" {name}", name.replace("_", " "))]
    if labels:
        yield plain(labels)
    if text is not None:
        for _, passage in passages(text):  # as one stretch, and as the single rows that it may hold
            yield plain([passage, *passage.splitlines()])


def _common(tokenizer: Any, n: int) -> list[int]:
    """The `n` lowest ids of pieces of several characters, without `[unused1]` and the like."""
    words: dict[str, int] = tokenizer.get_vocab()
    return sorted(i for word, i in words.items() if len(word) > 1 and not MARKED.fullmatch(word))[:n]


def _with_words(held: Held, trimmed: Trimmed) -> Held:
    """The model with these words; a head that says words, or asks in words, is made anew over them."""
    task, model, old = held.task, held.model, held.model.head
    base = keep_words(held.base, trimmed)
    if task.bind is None:
        return replace(held, base=base)
    task = task.bind(base, held.labels, weights=False)
    dense: Any = getattr(old, "dense", None)
    head = task.head(base.width, held.labels, base.pooling, dense)
    state = rows_kept(old.state_dict(), head.state_dict(), trimmed.kept)
    own = {id(p) for p in base.trunk.parameters()}
    shared = {name for name, p in head.named_parameters(remove_duplicate=False) if id(p) in own}
    head.load_state_dict({k: v for k, v in state.items() if k not in shared}, strict=False)
    head.requires_grad_(False).eval()
    model.head = head.to(next(base.trunk.parameters()).device)
    return replace(held, base=base, task=task)
