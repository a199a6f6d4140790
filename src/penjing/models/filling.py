"""Fill in the middle: a text with a hole, written as prefix, suffix, middle (Bavarian et al. 2022, arXiv
2207.14255), so that a decoder learns to say what is between two things.

Which tokens stand between the parts is the base's own affair where it knows such tokens; else their names are
written as text and learned like words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.data.feed import ends_of

KNOWN = (  # prefix, suffix, middle: Qwen and StableCode, StarCoder, SantaCoder, Code Llama, DeepSeek
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)


@dataclass(frozen=True, eq=False)
class Filling:
    """How a base reads a hole. `own`: it has tokens for it."""

    tokenizer: Any
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    middle: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    own: bool

    @property
    def taken(self) -> int:
        """Tokens that are not the text's."""
        return sum(map(len, (self.prefix, self.suffix, self.middle, self.first, self.last)))

    def ids(self, text: str) -> list[int]:
        """A text's own tokens."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def asked(self, before: str, behind: str, room: int) -> list[int]:
        """A hole to be filled, in at most `room` tokens: what is far from the hole is left out."""
        ours, theirs = self.ids(before), self.ids(behind)
        space = room - self.taken + len(self.last)
        kept = min(len(theirs), max(space // 2, space - len(ours)))
        ours = ours[max(0, len(ours) - (space - kept)) :]
        return [*self.first, *self.prefix, *ours, *self.suffix, *theirs[:kept], *self.middle]

    def written(self, text: str, rng: np.random.Generator, *, spm: float, room: int) -> list[int]:
        """A text with a hole between two places drawn evenly, in at most `room` tokens; too many are taken
        from the end of its suffix. spm: the share of texts written suffix first."""
        a, b = np.sort(rng.integers(0, len(text) + 1, size=2)).tolist()
        before, inside, behind = self.ids(text[:a]), self.ids(text[a:b]), self.ids(text[b:])
        space = room - self.taken - len(before) - len(inside)
        behind = behind[: max(0, space)]
        if rng.random() < spm:
            whole = [*self.prefix, *self.suffix, *behind, *self.middle, *before, *inside]
        else:
            whole = [*self.prefix, *before, *self.suffix, *behind, *self.middle, *inside]
        return [*self.first, *whole, *self.last][:room]


def filling_of(tokenizer: Any) -> Filling:
    """How the base of this tokenizer reads a hole."""
    known = tokenizer.get_vocab()
    names = next((some for some in KNOWN if all(name in known for name in some)), None)
    if names:
        parts: Sequence[tuple[int, ...]] = [(int(known[name]),) for name in names]
    else:
        parts = [
            tuple(tokenizer(name, add_special_tokens=False, verbose=False)["input_ids"]) for name in KNOWN[0]
        ]
    first, last = ends_of(tokenizer)
    return Filling(tokenizer, parts[0], parts[1], parts[2], first, last, names is not None)
