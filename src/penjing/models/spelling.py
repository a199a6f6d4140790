"""What each token of a tokenizer adds to a text, in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from penjing.data.tokenize import backend_of
from penjing.errors import NotSupported

SPACE = "▁"  # as SentencePiece writes one
LONGEST = 48  # bytes; what is longer (mostly runs of spaces) is never said
TRIED = 64  # tokens whose spelling is compared with what the tokenizer itself says


@dataclass(frozen=True, eq=False)
class Spelling:
    """`later[i]` are the bytes of token i; `first[i]` those that it has at the beginning, where
    SentencePiece's leading space is left out. Empty: a special token, or one that adds nothing."""

    first: list[bytes]
    later: list[bytes]

    def text(self, ids: tuple[int, ...] | list[int]) -> str:
        """The text of some tokens."""
        data = b"".join(self.later[i] if place else self.first[i] for place, i in enumerate(ids))
        return data.decode(errors="replace")


_known: WeakKeyDictionary[Any, Spelling] = WeakKeyDictionary()


def spelling_of(tokenizer: Any) -> Spelling:
    """How a tokenizer spells, compared with what it says itself of 64 tokens in pairs.

    Raises:
        NotSupported: its tokens are no pieces of a text, such as word pieces, between which nobody knows
            where spaces are.
    """
    if tokenizer not in _known:
        _known[tokenizer] = _checked(tokenizer, _spelled(tokenizer))
    return _known[tokenizer]


def _spelled(tokenizer: Any) -> Spelling:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, one in added.items() if one.special)}
    decoder = repr(getattr(backend_of(tokenizer), "decoder", None))
    by_bytes = _bytes_of_letters() if "ByteLevel" in decoder else None
    later: list[bytes] = []
    for i, token in enumerate(tokens):
        if i in special or token is None:
            later.append(b"")
        elif i in added:
            later.append(token.encode())
        elif by_bytes:
            later.append(bytes(by_bytes[c] for c in token) if all(c in by_bytes for c in token) else b"")
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            later.append(bytes([int(token[3:5], 16)]))
        else:
            later.append(token.replace(SPACE, " ").encode())
    first = later
    if not by_bytes and _strips(tokenizer, tokens, special):
        first = [one.removeprefix(b" ") for one in later]
    short = lambda all_: [one if len(one) <= LONGEST else b"" for one in all_]  # noqa: E731
    return Spelling(short(first), short(later))


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's letters for bytes (Radford et al. 2019): printable ones for themselves, others from U+0100."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _strips(tokenizer: Any, tokens: list[str | None], special: set[int]) -> bool:
    """Whether a text loses the space that it begins with."""
    for i, token in enumerate(tokens):
        if token and i not in special and len(token) > 1 and token[0] == SPACE:
            return not _said(tokenizer, [i]).startswith(" ")
    return False


def _said(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _checked(tokenizer: Any, found: Spelling) -> Spelling:
    usable = [i for i, one in enumerate(found.later) if one and found.first[i] and _whole(one)]
    chosen = np.random.default_rng(0).permutation(usable)[:TRIED].tolist()
    for pair in zip(chosen[::2], chosen[1::2], strict=False):
        ours, theirs = found.text([*pair]), _said(tokenizer, [*pair])
        if ours != theirs:
            raise NotSupported(
                f"Answers of a given form need a tokenizer whose tokens are pieces of the text; of "
                f"{tokenizer.convert_ids_to_tokens([*pair])} this one makes {theirs!r}, not {ours!r} (word "
                "pieces do so). Take a base with byte-level or SentencePiece tokens, or choices, which work "
                "with any."
            )
    return found


def _whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
