"""Tables with a token a row and the number of its sentence, as spreadsheets hold entities, to sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from penjing.data.columns import simple
from penjing.data.table import Cells, Table

WORDS = ("word", "token", "words", "tokens", "text", "字", "词")
TAGS = ("tag", "ner_tag", "ner", "bio", "label", "tags", "labels", "entity", "标签", "标注")
SENTENCES = (
    "sentence", "sentence_id", "sentence_idx", "sent_id", "sent", "sentence_number", "sent_no", "句子",
    "句子编号", "句号",
)  # fmt: skip


def sentences_of(table: Table) -> Table | None:
    """The table of sentences, with lists `tokens` and `tags`; None where there are no columns of sentences,
    words and tags. An empty cell under the sentence's number means that the sentence goes on."""
    picked = [_one(table, names) for names in (SENTENCES, WORDS, TAGS)]
    columns = [name for name in picked if name is not None]
    if table.lists or len(columns) < 3:
        return None

    def rows(names: Sequence[str]) -> Cells:
        line, last, tokens, tags = 0, "", list[str](), list[str]()

        def cells() -> list[Any]:
            return [{"tokens": tokens, "tags": tags}[name] for name in names]

        for number, (sentence, word, tag) in table.rows(columns):
            begins = str(sentence if sentence is not None else "").strip()
            if begins and begins != last:
                if tokens:
                    yield line, cells()
                line, last, tokens, tags = number, begins, [], []
            tokens.append(str(word if word is not None else ""))
            tags.append(str(tag if tag is not None else "").strip())
        if tokens:
            yield line, cells()

    sentence, word, tag = columns
    note = f"{table.name}: a token a row, from `{word}`, its tag from `{tag}`, sentences by `{sentence}`"
    return replace(
        table, columns=(), rows=rows, notes=(*table.notes, note), typed=True, lists=("tokens", "tags")
    )


def _one(table: Table, names: Sequence[str]) -> str | None:
    plain = {simple(name): name for name in reversed(table.columns)}
    return next((plain[name] for name in names if name in plain), None)
