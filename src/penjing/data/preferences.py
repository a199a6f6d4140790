"""Preferences: a conversation and two replies to it, the better and the worse.

| form | told by |
|---|---|
| ShareGPT | `conversations`, and `chosen` and `rejected` as messages |
| OpenAI | `messages` or `prompt`, and `chosen` and `rejected` as messages or texts |
| flat | `prompt` (or `question`, or `instruction` with `input`), `chosen` and `rejected` as texts |
| whole | `chosen` and `rejected` only, each a conversation that differs in its last reply |
| hh-rlhf | the same as texts of `Human:` and `Assistant:` |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import simple
from penjing.data.conversations import MORE, TURNS, conversation, flaw_of, instructed, opened, said
from penjing.data.messages import Conversation, Message
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.records import Rows

PROMPTS = ("prompt", "question", "instruction", "query")
BETTER = ("chosen", "better", "preferred")
WORSE = ("rejected", "worse", "dispreferred")
_SAID = str | int | float  # a reply may be a number
_SIDES = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Preference:
    """A conversation that ends with a question, and two replies to it."""

    asked: Conversation
    chosen: Message
    rejected: Message

    def whole(self) -> tuple[Conversation, Conversation]:
        """The conversation with the better reply, and with the worse."""
        return (
            Conversation((*self.asked.messages, self.chosen), self.asked.tools),
            Conversation((*self.asked.messages, self.rejected), self.asked.tools),
        )


def read(
    source: str | Path | Sequence[str | Path],
    *,
    labelled: bool = True,
    repair: bool = False,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows with a `Preference` each in `items`. repair: pairs that cannot be used are left out and counted.

    Raises:
        DataError: no known form, or pairs that cannot be used.
    """
    for key, value in (("text", text), ("label", label), ("delimiter", delimiter)):
        if value is not None:
            raise DataError(
                f"`data.{key}` is {value!r}; preferences are read from `prompt`, `chosen` and `rejected`, so "
                "it would be ignored. Leave it out, or name the columns so."
            )
    items: list[Preference] = []
    files: list[str] = []
    places: list[tuple[int, int]] = []
    notes: list[str] = []
    flaws: list[tuple[str, str]] = []
    for table in tables(source, encoding=encoding, wanted=(*BETTER, *WORSE)):
        file = len(files)
        files += table.files
        notes += table.notes
        columns = _columns(table)
        for line, cells in table.rows(list(columns.values())):
            row = dict(zip(columns, cells, strict=True))
            try:
                one = _preference(row)
                flaw = _flaw(one)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                flaw = f"it cannot be read: {error}"
            if flaw:
                flaws.append((f"{table.name}, line {line}", flaw))
                continue
            items.append(one)
            places.append((file, line))
    notes += _judged(flaws, len(items) + len(flaws), repair or drop_empty)
    if not items:
        raise DataError(f"{source}: no pair of replies is left. Give questions with two replies each.")
    return Rows(
        [f"{said(one.asked)}\n+ {one.chosen.content}\n- {one.rejected.content}" for one in items],
        [()] * len(items),
        tuple(files),
        np.array([file for file, _ in places], dtype=np.int32),
        np.array([line for _, line in places], dtype=np.int64),
        tuple(dict.fromkeys(notes)),
        list(items),
    )


def _columns(table: Table) -> dict[str, str]:
    """What is asked, and both replies: our name of each column to the table's."""
    known = {simple(name): name for name in reversed(table.columns)}
    found = {}
    for key, names in (("chosen", BETTER), ("rejected", WORSE)):
        hit = next((known[name] for name in names if name in known), None)
        if hit is None:
            raise DataError(
                f"{table.name}: a better and a worse reply were wanted, as `chosen` and `rejected`; columns "
                f"are {', '.join(table.columns[:12])}. Name them so."
            )
        found[key] = hit
    turns = next((known[name] for name in (*TURNS, *PROMPTS) if name in known), None)
    more = MORE if turns and simple(turns) == "instruction" else ("system", "tools")
    found |= {name: known[name] for name in more if name in known}
    return found | ({"asked": turns} if turns else {})


def _preference(row: dict[str, Any]) -> Preference:
    replies = [_turns(row[key], whole="asked" not in row) for key in ("chosen", "rejected")]
    chosen, rejected = (conversation({"messages": turns}).messages for turns in replies)
    if not chosen or chosen[:-1] != rejected[:-1]:
        raise ValueError("`chosen` and `rejected` differ before their last reply")
    asked = opened(row.get("asked"))
    if "input" in row or "history" in row:
        asked = instructed({"instruction": asked, **row})
    elif isinstance(asked, _SAID):
        asked = [{"role": "user", "content": asked}]
    more = {"system": row.get("system"), "tools": row.get("tools")}
    lead = [] if asked else replies[0][:-1]
    before = conversation({"messages": asked or lead, **more})
    messages = before.messages if lead else _led(before.messages, chosen[:-1])
    return Preference(Conversation(messages, before.tools), chosen[-1], rejected[-1])


def _led(asked: tuple[Message, ...], lead: tuple[Message, ...]) -> tuple[Message, ...]:
    """What is asked, where both replies bring along what stands before their last one: calls of tools that go
    on from it, or the conversation that it is of."""
    if not lead or lead[0].role == "assistant":
        return asked + lead
    if not any(message in lead for message in asked[-1:]):
        raise ValueError("what `chosen` brings along before its reply does not hold what is asked")
    return lead if lead[0].role == "system" or asked[0].role != "system" else asked[:1] + lead


def _turns(cell: Any, *, whole: bool) -> list[Any]:
    """The messages of a reply; `whole`: nothing else says what was asked."""
    cell = opened(cell)
    if whole and isinstance(cell, str) and cell.lstrip().startswith("Human:"):
        _, *said_by = _SIDES.split(f"\n\n{cell.strip()}")
        sides = zip(said_by[::2], said_by[1::2], strict=True)
        return [{"role": role, "content": content.strip()} for role, content in sides]
    if isinstance(cell, dict):
        return [cell]
    if cell is None:
        raise ValueError("a reply is missing")
    return [{"role": "assistant", "content": cell}] if isinstance(cell, _SAID) else [*cell]


def _flaw(one: Preference) -> str:
    for name, whole in zip(("chosen", "rejected"), one.whole(), strict=True):
        flaw = flaw_of(whole)
        if flaw:
            return f"with `{name}` {flaw}"
        if whole.messages[-1].role != "assistant":
            return f"`{name}` is said by `{whole.messages[-1].role}`"
    same = (
        one.chosen.content.strip() == one.rejected.content.strip() and one.chosen.calls == one.rejected.calls
    )
    return "`chosen` equals `rejected`, so nothing is preferred" if same else ""


def _judged(flaws: list[tuple[str, str]], n: int, repair: bool) -> list[str]:
    if not flaws:
        return []
    where, flaw = flaws[0]
    if not repair:
        raise DataError(
            f"{where}: a question with a better and a worse reply was wanted; {flaw}. {len(flaws):,} of "
            f"{n:,} pairs cannot be used. Mend them, or leave them out with `repair: true` "
            "(`task: {prefer: {repair: true}}`)."
        )
    kinds = Counter(flaw.partition(":")[0].partition(" in message")[0] for _, flaw in flaws)
    told = ", ".join(f"{count:,} as {kind}" for kind, count in kinds.most_common())
    return [f"{len(flaws):,} of {n:,} pairs left out: {told} (such as {where})"]
