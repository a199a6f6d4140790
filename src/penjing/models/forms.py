"""Answers of a given form: a JSON schema, a regular expression, or one of some choices.

The form becomes an automaton over bytes (`automaton.py`); at each step only those tokens may be said that it
takes, and from which an end can still be reached in the room that is left. So every answer has its form, and
none is cut in its middle, whatever the model would like to say.

How far the end is, is counted in tokens: a shortest way by tokens of one character or byte each is found for
every state, and its text is then laid out in as few tokens as the vocabulary has for it. That is a way that
exists, so a token which keeps it in reach is safe.

Legend: n states, V tokens.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from penjing.errors import DataError, NotSupported, SpecError, nearest
from penjing.models import regexes, schemas
from penjing.models.automaton import DEAD, Machine, machine_of
from penjing.models.decoding import Allow, one_of
from penjing.models.spelling import Spelling, spelling_of

KINDS = ("schema", "regex", "choices")
FAR = 1 << 20  # no end can be reached
HELD = 32 << 20  # bytes of masks that a rule keeps
RULES = 16  # of a tokenizer that are kept
_rules: WeakKeyDictionary[Any, dict[str, Rule]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Form:
    """What an answer shall be: one of `schema`, `regex` and `choices`, as `kind` says."""

    kind: str
    given: Any

    def written(self) -> dict[str, Any]:
        """As in a spec."""
        return {self.kind: list(self.given) if self.kind == "choices" else self.given}


@dataclass(frozen=True, eq=False)
class Rule:
    """A form for one tokenizer: `allow` says what may follow (models/decoding.py), `text` is the text of an
    answer's tokens, exactly; `more(text)` what an answer has beside it: of a JSON schema its `value`."""

    allow: Allow
    text: Callable[[Sequence[int]], str]
    more: Callable[[str], dict[str, Any]]


def form_of(given: Any) -> Form:
    """A form as it is written: `{schema: {…}}`, `{regex: "…"}` or `{choices: […]}`; a Form as it is.

    A schema may also be a pydantic model.

    Raises:
        SpecError: it is none of these.
    """
    if isinstance(given, Form):
        return given
    if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in KINDS:
        wrong = next((str(key) for key in given), "") if isinstance(given, Mapping) else ""
        raise SpecError(
            f"A form of answers is one of `schema`, `regex` and `choices`; it is {str(given)[:80]!r}."
            f"{nearest(wrong, KINDS) if wrong else ''} Give such as {{choices: [yes, no]}}."
        )
    kind, value = next(iter(given.items()))
    if kind == "schema" and hasattr(value, "model_json_schema"):
        value = value.model_json_schema()
    if kind == "regex" and not isinstance(value, str):
        raise SpecError(
            f"`regex` must be a text; it is {str(value)[:60]!r}. Put the pattern in quotes, such as '[0-9]+'."
        )
    if kind == "choices":
        value = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
        if not value or not all(isinstance(one, str) and one for one in value):
            raise SpecError(
                f"`choices` must be a list of texts; it is {str(given[kind])[:80]!r}. Give such as [yes, "
                "no]; numbers in quotes."
            )
    half = next(
        (c for c in json.dumps(value, ensure_ascii=False, default=str) if "\ud800" <= c <= "\udfff"), ""
    )
    if half:  # a terminal in another encoding, or JSON that writes one
        raise SpecError(
            f"`{kind}` was to be Unicode; it has half of a character (\\u{ord(half):04x}), which no answer "
            f"can have. Write it in UTF-8, with its other half."
        )
    return Form(kind, value)


def rule_of(tokenizer: Any, form: Form, stop: Sequence[int]) -> Rule:
    """The rule that keeps answers in a form; `stop` are the ids that end one. The last ones made are kept.

    Raises:
        SpecError: the form cannot be followed. NotSupported: nothing ends an answer, or the tokenizer's
            tokens are no pieces of a text.
    """
    if not stop:
        raise NotSupported(
            "Answers of a given form must end; this base's tokenizer has no token that ends a text. Take a "
            "base whose tokenizer has an end token (eos)."
        )
    known = _rules.setdefault(tokenizer, {})
    key = f"{form.kind} {json.dumps(form.given)} {sorted(stop)}"
    if key not in known:
        made = (_of_choices if form.kind == "choices" else _of_machine)(tokenizer, form, stop)
        while len(known) >= RULES:
            known.pop(next(iter(known)), None)
        known[key] = made
    return known[key]


def _of_machine(tokenizer: Any, form: Form, stop: Sequence[int]) -> Rule:
    spelling = spelling_of(tokenizer)
    machine = _machine(form.kind, json.dumps(form.given))
    if machine.start == DEAD:
        raise SpecError(
            f"Answers were to have the form {str(form.given)[:80]!r}; no text has it (a bound above another, "
            "or a definition that needs itself without end). Mend the form."
        )
    return Rule(
        _allow(machine, spelling, tuple(stop)),
        lambda ids: spelling.text([*ids]),
        (lambda text: {"value": json.loads(text)}) if form.kind == "schema" else _nothing,
    )


def _nothing(text: str) -> dict[str, Any]:
    return {}


@lru_cache(maxsize=32)
def _machine(kind: str, given: str) -> Machine:
    form = json.loads(given)
    return machine_of(schemas.piece_of(form) if kind == "schema" else regexes.piece_of(form))


def _of_choices(tokenizer: Any, form: Form, stop: Sequence[int]) -> Rule:
    """Each choice in the tokens that the tokenizer makes of it, as it was learned."""
    choices: Sequence[str] = form.given
    ids = [tokenizer(text_target=one, add_special_tokens=False).input_ids for one in choices]
    said = {tuple(own): choice for own, choice in zip(ids, choices, strict=True)}
    unknown = tokenizer.unk_token_id
    for own, choice in zip(ids, choices, strict=True):
        if not own or (unknown is not None and unknown in own) or said[tuple(own)] != choice:
            raise SpecError(
                f"`choices` were to be said; this base's tokenizer has no tokens of its own for {choice!r}. "
                "Leave it out, or name it by words that the base knows."
            )
    return Rule(one_of(ids, stop[0]), lambda own: said.get(tuple(own), ""), _nothing)


def _allow(machine: Machine, spelling: Spelling, stop: tuple[int, ...]) -> Allow:
    need = _needed(machine, spelling)
    if need[machine.start] >= FAR:
        raise NotSupported(
            "An answer of the form has characters that this base's tokenizer has no token for (braces and "
            "quotes of JSON, perhaps). Take a base with byte-level tokens, or train its tokenizer on texts "
            "with these characters."
        )
    first, later = _Step(machine, spelling.first), _Step(machine, spelling.later)
    size = max(32, HELD // (4 * len(spelling.later)))

    @lru_cache(maxsize=size)
    def ahead(state: int, begun: bool) -> np.ndarray:
        """(V,) what is needed after each token."""
        found: np.ndarray = need[(later if begun else first)(state)]
        return found

    def allow(said: Sequence[int], left: int) -> Tensor:
        state = machine.start
        for place, token in enumerate(said):
            bytes_ = spelling.later if place else spelling.first
            state = machine.after(bytes_[token], state) if token < len(bytes_) else DEAD
        mask = torch.from_numpy(ahead(state, bool(said)) + 2 <= left)  # the token itself, and a stop
        if machine.ends[state]:
            mask[list(stop)] = True
        elif not mask.any() and not said:
            raise DataError(
                f"An answer of this form needs at least {ahead(state, False).min() + 2} tokens, its stop "
                f"token among them; {left} are left for it. Raise `max_new` (`longest`), or shorten the form "
                "or the text that is asked."
            )
        return mask

    return allow


class _Step:
    """The state that each token of a vocabulary leads to: all of them a byte at a time."""

    def __init__(self, machine: Machine, spelled: Sequence[bytes]) -> None:
        self.table, self.size = machine.table, len(spelled)
        self.lengths = np.array([len(one) for one in spelled])
        self.bytes = np.zeros((self.size, max(1, int(self.lengths.max()))), np.uint8)
        for i, one in enumerate(spelled):
            self.bytes[i, : len(one)] = np.frombuffer(one, np.uint8)

    def __call__(self, state: int) -> np.ndarray:
        """(V,) states, `DEAD` where a token may not come."""
        found = np.zeros(self.size, np.int32)
        alive = np.flatnonzero(self.lengths)
        at = np.full(len(alive), state, np.int32)
        for place in range(self.bytes.shape[1]):
            at = self.table[at, self.bytes[alive, place]]
            alive, at = alive[at != DEAD], at[at != DEAD]
            over = self.lengths[alive] == place + 1
            found[alive[over]] = at[over]
            alive, at = alive[~over], at[~over]
            if not len(alive):
                break
        return found


def _needed(machine: Machine, spelling: Spelling) -> np.ndarray:
    """(n,) tokens from each state to an end on a way that exists, `FAR` where there is none."""
    small = _small(spelling)
    n = len(machine.ends)
    source, target, name = _edges(machine, small)
    bounds = np.searchsorted(target, np.arange(n + 1))
    need = np.full(n, FAR, np.int64)
    need[machine.ends] = 0
    behind = np.full((n, 2), -1, np.int64)  # the next state on the way, and the token that leads there
    order: list[int] = []
    open_ = deque(np.flatnonzero(machine.ends).tolist())
    while open_:
        state = open_.popleft()
        order.append(state)
        before = slice(bounds[state], bounds[state + 1])
        new = need[source[before]] == FAR
        if new.any():
            own, at = np.unique(source[before][new], return_index=True)
            need[own] = need[state] + 1
            behind[own] = np.stack([np.full(len(own), state), name[before][new][at]], 1)
            open_.extend(own.tolist())
    return _in_few_tokens(need, behind, order, small, {*spelling.later} - {b""})


def _small(spelling: Spelling) -> list[bytes]:
    """Tokens of one byte, and those of one character whose bytes are not all tokens."""
    single = {one for one in spelling.later if len(one) == 1}
    more = {one for one in spelling.later if 1 < len(one) <= 4 and _is_character(one)}
    return [*sorted(single), *sorted(one for one in more if any(bytes([b]) not in single for b in one))]


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def _edges(machine: Machine, small: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, those that a small token leads to, and which token it was (one for each two states), in the
    order of the second."""
    n = len(machine.ends)
    states, keys, names = np.arange(n), np.zeros(0, np.int64), np.zeros(0, np.int64)
    for start in range(0, len(small), 256):
        fresh = [(keys, names)]
        for i, data in enumerate(small[start : start + 256], start):
            at = states
            for byte in data:
                at = machine.table[at, byte]
            there = np.flatnonzero(at != DEAD)
            fresh.append((at[there].astype(np.int64) * n + there, np.full(len(there), i)))
        keys, first = np.unique(np.concatenate([key for key, _ in fresh]), return_index=True)
        names = np.concatenate([name for _, name in fresh])[first]
    return keys % n, keys // n, names


def _in_few_tokens(
    need: np.ndarray, behind: np.ndarray, order: list[int], small: list[bytes], tokens: set[bytes]
) -> np.ndarray:
    """The ways of one character a step, laid out in the longest tokens that there are."""
    longest = max(map(len, tokens), default=0)
    for state in order:
        if need[state] == 0:
            continue
        data, at, best = b"", state, int(need[state])
        while behind[at, 0] >= 0 and need[at] != 0:
            data += small[behind[at, 1]]
            at = int(behind[at, 0])
            if len(data) > longest:
                break
            if data in tokens:
                best = min(best, int(need[at]) + 1)
        need[state] = best
    return need
