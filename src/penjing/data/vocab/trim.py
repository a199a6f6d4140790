"""A tokenizer with fewer words, which reads the texts it was trimmed to exactly as before.

Why texts keep their tokens: WordPiece takes the longest known piece and Unigram the likeliest row of pieces,
and what was best among many is best among those of them that are left. Byte-pair encoding makes one merge
after the other; a merge that these texts never made can go, and one that they made stays with its parts.
"""

from __future__ import annotations

import copy
import json
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from penjing.data.tokenize import backend_of
from penjing.errors import NotSupported

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte that stands for part of a character without a piece
KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer words; new id i is what was `kept[i]`, (n,) int64, ascending."""

    tokenizer: Any
    kept: np.ndarray

    def new_id(self, old: int) -> int | None:
        """The new id of an old one; None where it is gone."""
        place = int(np.searchsorted(self.kept, old))
        return place if place < len(self.kept) and self.kept[place] == old else None


def trim(tokenizer: Any, used: Iterable[int]) -> Trimmed:
    """The tokenizer with the pieces of these ids, and what it cannot do without: special words, pieces that
    merges pass through, and single characters (those of the pieces kept and of ASCII, or all bytes), so that
    a new word is spelt and not unknown. Ids keep their order.

    Raises:
        NotSupported: a slow tokenizer, or one of another kind.
    """
    backend = backend_of(tokenizer)
    plain: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())
    kind = plain.get("model", {}).get("type")
    if backend is None or kind not in KINDS:
        raise NotSupported(
            f"A tokenizer to trim was wanted, of kind {', '.join(KINDS)}; {type(tokenizer).__name__} is "
            f"{'a slow one, of Python code' if backend is None else f'of kind {kind}'}. Its words stay: "
            f"leave out `trim_vocabulary`."
        )
    model = plain["model"]
    pieces = _pieces(model)
    kept = set(used) | {one["id"] for one in plain["added_tokens"]} | set(_named(plain.get("post_processor")))
    kept |= _needed(model, pieces)
    kept |= _alphabet(plain, pieces, kept)
    if kind == "BPE":
        kept |= _passed_through(model, pieces, kept)
    pad = tokenizer.pad_token_id
    if pad is not None and pad < 100:  # RoBERTa's positions are counted from the padding's id
        kept |= set(range(pad))
    order = sorted(kept & (pieces.keys() | {one["id"] for one in plain["added_tokens"]}))
    new = {old: i for i, old in enumerate(order)}
    made = copy.deepcopy(tokenizer)
    made._tokenizer = type(backend).from_str(json.dumps(_renamed(plain, pieces, new)))
    return Trimmed(made, np.array(order, dtype=np.int64))


def _pieces(model: dict[str, Any]) -> dict[int, str]:
    """Piece by id; Unigram's ids are places in a list."""
    if model["type"] == "Unigram":
        return {i: piece for i, (piece, _) in enumerate(model["vocab"])}
    return {i: piece for piece, i in model["vocab"].items()}


def _needed(model: dict[str, Any], pieces: dict[int, str]) -> set[int]:
    """What the algorithm itself asks for: the unknown piece, bytes it falls back to, and Unigram's least
    likely piece, from whose score that of an unknown character is made."""
    ids = {piece: i for i, piece in pieces.items()}
    found = {ids[model["unk_token"]]} if model.get("unk_token") in ids else set()
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        found |= {int(np.argmin(scores))} | ({model["unk_id"]} if model.get("unk_id") is not None else set())
    if model.get("byte_fallback"):
        found |= {i for i, piece in pieces.items() if BYTE.fullmatch(piece)}
    return found


def _alphabet(plain: dict[str, Any], pieces: dict[int, str], kept: set[int]) -> set[int]:
    """Pieces of one character, wherever in a word it stands: of every byte, or of the characters that the
    pieces kept are made of, with ASCII."""
    from tokenizers import pre_tokenizers

    model = plain["model"]
    before, after = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    bytewise = "ByteLevel" in json.dumps([plain.get("pre_tokenizer"), plain.get("decoder")])
    known = set(pre_tokenizers.ByteLevel.alphabet()) if bytewise else set(string.printable) | {"▁"}
    known |= {sign for i in kept if i in pieces for sign in pieces[i]}
    single = lambda piece: piece.removeprefix(before).removesuffix(after) or piece  # noqa: E731
    return {i for i, piece in pieces.items() if single(piece) in known}


def _passed_through(model: dict[str, Any], pieces: dict[int, str], kept: set[int]) -> set[int]:
    """Ids of the pieces that merging makes on its way to those kept.

    What happens inside a piece of a word is what happens to that piece alone: no merge has crossed its ends.
    """
    if model.get("continuing_subword_prefix"):
        raise NotSupported(
            "A tokenizer whose merges join pieces end to end was wanted; this one marks pieces inside a word "
            f"(`{model['continuing_subword_prefix']}`) as no checkpoint of ours does. Leave out "
            "`trim_vocabulary`."
        )
    ids = {piece: i for i, piece in pieces.items()}
    rank = {pair: r for r, pair in reversed(list(enumerate(_merges(model))))}
    suffix = model.get("end_of_word_suffix") or ""
    found: set[int] = set()
    for piece in (pieces[i] for i in kept if i in pieces):
        found |= {ids[part] for part in _made_on_the_way(piece, rank, suffix) if part in ids}
    return found


def _made_on_the_way(piece: str, rank: dict[tuple[str, str], int], suffix: str) -> Iterator[str]:
    """All that stands in the row while a piece is put together, lowest rank and leftmost pair first."""
    row = list(piece.removesuffix(suffix)) if suffix else list(piece)
    if suffix and piece.endswith(suffix) and row:
        row[-1] += suffix
    yield from row
    while len(row) > 1:
        best, at = min((rank.get(pair, len(rank)), i) for i, pair in enumerate(pairwise(row)))
        if best == len(rank):
            return
        row[at : at + 2] = [row[at] + row[at + 1]]
        yield row[at]


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs in the order of their ranks; older files hold them as one string each."""
    pairs = (one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"])
    return [(first, second) for first, second in pairs]


def _named(post: Any) -> Iterator[int]:
    """Ids that a post-processor puts around a text."""
    if not isinstance(post, dict):
        return
    for one in post.get("processors", []):
        yield from _named(one)
    for role in ("sep", "cls"):
        if role in post:
            yield post[role][1]
    if isinstance(post.get("special_tokens"), dict):
        for about in post["special_tokens"].values():
            yield from about["ids"]


def _renamed(plain: dict[str, Any], pieces: dict[int, str], new: dict[int, int]) -> dict[str, Any]:
    """The tokenizer's file with the pieces of `new` alone, by their new ids."""
    model = plain["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in new if old in pieces]
        model["unk_id"] = new.get(model.get("unk_id"))
    else:
        model["vocab"] = {pieces[old]: i for old, i in new.items() if old in pieces}
    if model["type"] == "BPE":
        known = model["vocab"]
        merges = [(a, b) for a, b in _merges(model) if a in known and b in known and a + b in known]
        model["merges"] = [list(pair) for pair in merges]
    for one in plain["added_tokens"]:
        one["id"] = new[one["id"]]
    if plain.get("padding"):
        plain["padding"]["pad_id"] = new.get(plain["padding"]["pad_id"], 0)
    _renumber(plain.get("post_processor"), new)
    return plain


def _renumber(post: Any, new: dict[int, int]) -> None:
    if not isinstance(post, dict):
        return
    for one in post.get("processors", []):
        _renumber(one, new)
    for role in ("sep", "cls"):
        if role in post:
            post[role][1] = new[post[role][1]]
    if isinstance(post.get("special_tokens"), dict):
        for about in post["special_tokens"].values():
            about["ids"] = [new[old] for old in about["ids"]]
