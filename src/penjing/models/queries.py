"""Queries: how one row becomes the sequences that a base is asked with, and whose states answer.

A query is fixed ids before the text, the text, and fixed ids after it. Only the text is ever cut, so a mask,
a hypothesis or a label word always survives, and every place that matters is known from one end of the
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.errors import SpecError
from penjing.records import Tokens


@dataclass(frozen=True)
class Query:
    """One sequence of a row: `before`, the text, `after`, all of them with the tokenizer's special tokens.

    `sites` are the places whose states are read, as Python indexes: from the start, or below 0 from the end.
    The last `second` tokens are of the second segment. `lead`: the text stands behind a blank, which belongs
    to its first word where a tokenizer marks word beginnings.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    sites: tuple[int, ...]
    second: int = 0
    lead: str = ""


def words(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of a piece of text, without special tokens."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else ()


def frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that this tokenizer puts before and after one text."""
    text = _known(tokenizer)
    inner = words(tokenizer, text)
    whole = tuple(tokenizer(text)["input_ids"])
    at = _find(whole, inner, 0)
    return whole[:at], whole[at + len(inner) :]


def pair_after(tokenizer: Any, second: str) -> tuple[tuple[int, ...], int]:
    """What follows the first text of a pair whose second text is `second`: ids, and how many of them are of
    the second segment (0 where the tokenizer tells no segments apart)."""
    text = _known(tokenizer)
    inner = words(tokenizer, text)
    whole = tokenizer(text, second, return_token_type_ids=True, verbose=False)
    ids = tuple(whole["input_ids"])
    at = _find(ids, inner, 0) + len(inner)
    types = whole["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else ()
    return ids[at:], int(sum(types))


def pair_frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """The special tokens before, between and after the texts of a pair, and the type of the second text's
    tokens (0 where the tokenizer tells no segments apart)."""
    text = _known(tokenizer)
    inner = words(tokenizer, text)
    whole = tokenizer(text, text, return_token_type_ids=True, verbose=False)
    ids = tuple(whole["input_ids"])
    first = _find(ids, inner, 0)
    second = _find(ids, inner, first + len(inner))
    types = whole["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else [0] * len(ids)
    return ids[:first], ids[first + len(inner) : second], ids[second + len(inner) :], int(types[second])


def _known(tokenizer: Any) -> str:
    """A text that has tokens: a tokenizer learnt on other letters, and without a token for unknown ones,
    makes none of `a`.
    """
    if words(tokenizer, "a"):
        return "a"
    special, known = set(tokenizer.all_special_tokens), map(str, tokenizer.get_vocab())
    return next(text for text in known if text not in special and words(tokenizer, text))


def _find(whole: tuple[int, ...], inner: tuple[int, ...], start: int) -> int:
    return next(i for i in range(start, len(whole)) if whole[i : i + len(inner)] == inner)


def read(tokenizer: Any, texts: Sequence[str], queries: Sequence[Query], max_length: int) -> Tokens:
    """Every text as every query: `parts` holds their lengths. A text that does not fit loses its end, in each
    query as much as that one needs; `cut` counts such texts.

    Raises:
        SpecError: a query's own words leave no room for a text.
    """
    rooms = [max_length - len(q.before) - len(q.after) for q in queries]
    if min(rooms) < 1:
        longest = max_length - min(rooms)
        raise SpecError(
            f"The longest prompt has {longest} tokens of its own; `data.max_length` is {max_length}, which "
            f"leaves no room for the text. Use at least {longest + 8}, or shorter templates and label words."
        )
    leads = dict.fromkeys(q.lead for q in queries)
    bare = {lead: _ids(tokenizer, texts, lead) for lead in leads}
    ids: list[tuple[int, ...]] = []
    segments: list[np.ndarray] = []
    parts = np.empty((len(texts), len(queries)), dtype=np.int64)
    for i in range(len(texts)):
        for k, (query, room) in enumerate(zip(queries, rooms, strict=True)):
            one = (*query.before, *bare[query.lead][i][:room], *query.after)
            ids.append(one)
            parts[i, k] = len(one)
            segments.append(np.arange(len(one)) >= len(one) - query.second)
    flat = np.fromiter((token for one in ids for token in one), np.int32, int(parts.sum()))
    starts = np.concatenate([[0], parts.sum(1).cumsum()]).astype(np.int64)
    typed = np.concatenate([*segments, np.zeros(0, bool)]).astype(np.uint8) if _typed(queries) else None
    cut = sum(max(len(bare[q.lead][i]) - room for q, room in zip(queries, rooms, strict=True)) > 0
              for i in range(len(texts)))  # fmt: skip
    return Tokens(flat, starts, cut, parts, typed)


def _ids(tokenizer: Any, texts: Sequence[str], lead: str) -> list[list[int]]:
    if not texts:
        return []
    found: list[list[int]] = tokenizer(
        [f"{lead}{text}" if text else "" for text in texts], add_special_tokens=False, verbose=False
    )["input_ids"]
    return found


def _typed(queries: Sequence[Query]) -> bool:
    return any(q.second for q in queries)


def places(parts: np.ndarray, queries: Sequence[Query]) -> np.ndarray:
    """(S * Q,) lengths of the sequences of S rows -> (S, P) places of all sites in the packed states."""
    lengths = parts.reshape(-1, len(queries))
    starts = (np.cumsum(parts) - parts).reshape(lengths.shape)
    found = [
        starts[:, k] + site + (lengths[:, k] if site < 0 else 0)
        for k, query in enumerate(queries)
        for site in query.sites
    ]
    return np.stack(found, axis=1)
