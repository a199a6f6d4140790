"""Conversations: Alpaca's, ShareGPT's and OpenAI's forms, read as they are and told apart by their columns.

| form | told by |
|---|---|
| OpenAI | `messages` of `role` and `content`, with `tool_calls`; `tools` beside them |
| ShareGPT | `conversations` of `from` and `value`; `function_call` and `observation` are tool messages |
| Alpaca | `instruction`, `input`, `output`, with `system` and `history` |
| a prompt a row | `prompt`, `question` … and `completion`, `answer` …, each a text or messages |
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import one_named, simple
from penjing.data.fields import given_rows
from penjing.data.labels import is_missing
from penjing.data.lists import literal
from penjing.data.messages import Conversation, Message, mended, said_of
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.errors import DataError, nearest
from penjing.plural import counted
from penjing.records import Rows

ROLES = {
    "system": "system", "developer": "system", "系统": "system",
    "user": "user", "human": "user", "prompter": "user", "usr": "user", "customer": "user",
    "用户": "user", "客户": "user", "顾客": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "ai": "assistant", "sys": "assistant", "agent": "assistant",
    "客服": "assistant", "助手": "assistant",
    "function_call": "call", "tool_call": "call",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
}  # fmt: skip
TURNS = ("messages", "conversations", "conversation", "dialog", "dialogue")
REPLIES = ("output", "completion", "response", "answer", "reply", "回答", "答案", "回复", "答复")
MORE = ("input", "history", "system", "tools")
PROMPTS = ("prompt", "question", "query", "input", "问题", "提问", "咨询", "输入")


@dataclass
class _Found:
    items: list[Conversation] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flaws: list[tuple[str, str]] = field(default_factory=list)  # where, and what is wrong
    open_ends: int = 0
    mended: Counter[str] = field(default_factory=Counter)


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
    """Rows with a `Conversation` each in `items`.

    Args:
        labelled: replies must be there; else a conversation may end with the question.
        text, label: column of the messages (or of the prompt), and of the reply, where they are not found.
        repair: what is said before anybody asks is left out, what one side says several times in a row is
            one message, and conversations that cannot be used are left out, all counted. Else refused.

    Raises:
        DataError: no known form, or conversations that cannot be used.
    """
    if delimiter is not None:
        raise DataError(
            "`data.delimiter` stands between labels of one cell; conversations have none, so it would be "
            "ignored. Leave it out."
        )
    found = _Found()
    wanted = [*TURNS, *PROMPTS, *REPLIES, "instruction", *(name for name in (text, label) if name)]
    for table in tables(source, encoding=encoding, wanted=wanted):
        file = len(found.files)
        found.files += table.files
        form, rows = _form(table, text, label)
        found.notes += [*table.notes, f"{table.name}: conversations in the form of {form}"]
        for line, row in rows:
            _add(found, row, (file, line), f"{table.name}, line {line}", labelled, repair)
    _judge(found, repair or drop_empty)
    mute = sum(not said.learned for one in found.items for said in one.messages if said.role == "assistant")
    found.notes += [f"{counted(mute, 'reply', 'replies')} of weight 0: read, and not learned"] if mute else []
    if not found.items:
        raise DataError(f"{source}: no conversation is left. Give conversations with replies.")
    return Rows(
        [said(one) for one in found.items],
        [()] * len(found.items),
        tuple(found.files),
        np.array([file for file, _ in found.places], dtype=np.int32),
        np.array([line for _, line in found.places], dtype=np.int64),
        tuple(dict.fromkeys(found.notes)),
        list(found.items),
    )


def asked(inputs: Sequence[Any]) -> Rows:
    """Rows of what somebody says: a text, a list of messages, or an object with `messages`.

    Raises:
        DataError: one is none of these, or does not end with a question.
    """
    items = []
    for i, given in enumerate(inputs):
        where = f"item {i + 1} of {len(inputs)}"
        if isinstance(given, str) and given.strip():
            items.append(Conversation((Message("user", given),)))
            continue
        row = given if isinstance(given, dict) else {"messages": given}
        try:
            one = conversation(row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"`predict` takes a text or messages here; {where} is {str(given)[:60]!r} ({error}). Give "
                '[{"role": "user", "content": "…"}].'
            ) from error
        flaw = flaw_of(one, labelled=False)
        if flaw:
            raise DataError(f"`predict` was given a conversation in {where} in which {flaw}. Mend it.")
        items.append(one)
    return given_rows(items, [said(one) for one in items])


def question_of(one: Conversation) -> Conversation:
    """A conversation up to its last question: what a model is asked to reply to."""
    kept = len(one.messages)
    while kept and one.messages[kept - 1].role == "assistant":
        kept -= 1
    return Conversation(one.messages[:kept], one.tools)


def said(one: Conversation) -> str:
    """A conversation as one text, for people and for telling rows apart."""
    return "\n".join(
        f"{message.role}: {message.content or ' '.join(f'{tool}({given})' for tool, given in message.calls)}"
        for message in one.messages
    )


# ---- forms


def _form(
    table: Table, text: str | None, label: str | None
) -> tuple[str, Iterator[tuple[int, dict[str, Any]]]]:
    """The name of a table's form, and its rows as objects."""
    columns = {simple(name): name for name in reversed(table.columns)}
    if text is not None:
        prompt = one_named(table, text, key="text", must=True) or ""
        reply = one_named(table, label, key="label", must=True) if label else None
        wanted = {"prompt": prompt, "completion": reply} if reply else {"messages": prompt}
        return "the columns named", _rows(table, wanted, columns)
    turns = next((columns[name] for name in TURNS if name in columns), None)
    if turns is not None:
        form = "OpenAI" if simple(turns) == "messages" else "ShareGPT"
        return form, _rows(table, {"messages": turns}, columns)
    reply = next((columns[name] for name in REPLIES if name in columns), None)
    if "instruction" in columns and reply:
        own = {"instruction": columns["instruction"], "output": reply}
        own |= {name: columns[name] for name in ("input", "history") if name in columns}
        return "Alpaca", _rows(table, own, columns)
    said_first = next((columns[name] for name in PROMPTS if name in columns), None)
    if said_first and reply:
        form = f"a prompt (`{said_first}`) and a reply (`{reply}`) a row"
        return form, _rows(table, {"prompt": said_first, "completion": reply}, columns)
    raise DataError(
        f"{table.name}: conversations were wanted; columns are {', '.join(table.columns[:12])}. Known are "
        "`messages` (OpenAI), `conversations` (ShareGPT), `instruction` and `output` (Alpaca), `prompt` and "
        "`completion`. Name the column of messages with `text:`, or prompt and reply with `text:` and "
        "`label:`."
    )


def _rows(
    table: Table, wanted: dict[str, str], columns: dict[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    whole = wanted | {name: columns[name] for name in ("system", "tools") if name in columns}
    for line, cells in table.rows(list(whole.values())):
        row = dict(zip(whole, cells, strict=True))
        # A reply of a CSV may be the word None; what need not be there is missing so, as pandas writes it.
        yield line, row | {key: None for key in MORE if is_missing(row.get(key), typed=table.typed)}


def conversation(row: dict[str, Any]) -> Conversation:
    """A row of any form as a conversation.

    Raises:
        ValueError, TypeError, KeyError: it is of none; the text says what was found.
    """
    turns = opened(next((row[name] for name in TURNS if row.get(name) is not None), None))
    if turns is None and "instruction" in row:
        turns = [*instructed(row), {"role": "assistant", "content": row.get("output")}]
    elif turns is None:
        turns = [*_side(row.get("prompt"), "user"), *_side(row.get("completion"), "assistant")]
    if not isinstance(turns, list | tuple):
        raise TypeError(f"{str(turns)[:40]!r} is no list of messages")
    messages = [_message(one) for one in turns]
    system = row.get("system")
    if system and (not messages or messages[0].role != "system"):
        messages.insert(0, Message("system", str(system)))
    return Conversation(tuple(messages), _tools(row.get("tools")))


def instructed(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages of what Alpaca's `instruction` asks of its `input`, behind its `history`."""
    turns = []
    for question, reply in opened(row.get("history")) or []:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    parts = [part for part in (row["instruction"], row.get("input")) if not is_missing(part, typed=True)]
    return [*turns, {"role": "user", "content": "\n".join(map(str, parts))}]


def opened(cell: Any) -> Any:
    """A cell of a CSV that holds a list of messages, or of pairs, as text, opened; any other as it is."""
    if isinstance(cell, str) and re.match(r"\s*\[\s*[\[{\]]", cell):
        with contextlib.suppress(ValueError, SyntaxError):
            return literal(cell.strip())
    return cell


def _side(cell: Any, role: str) -> list[Any]:
    cell = opened(cell)
    if isinstance(cell, list | tuple):
        return [*cell]
    return [] if cell is None else [{"role": role, "content": cell}]


def _message(one: Any) -> Message:
    if not isinstance(one, dict):
        raise TypeError(f"{str(one)[:40]!r} is no message")
    name = one.get("role", one.get("from"))
    role = ROLES.get(str(name).lower())
    if role is None:
        raise ValueError(f"a message is said by {name!r}.{nearest(str(name), ROLES)}")
    content = one.get("content", one.get("value"))
    calls = one.get("tool_calls") or ()
    if role == "call":
        role, calls, content = "assistant", content if isinstance(content, list) else [content], ""
    elif isinstance(content, list):  # parts, of which texts can be read
        strange = next((part for part in content if not isinstance(part, dict) or "text" not in part), None)
        if strange is not None:
            raise ValueError(f"a message has a part without a text, {str(strange)[:40]!r}")
        content = "".join(part["text"] for part in content)
    weight = one.get("weight")
    if weight not in (None, 0, 1):
        raise ValueError(f"a message has the weight {weight!r}; 0 or 1 were wanted")
    content, thought = (
        "" if is_missing(text, typed=True) else str(text) for text in (content, one.get("reasoning_content"))
    )
    return Message(role, content, tuple(_call(call) for call in calls), learned=weight != 0, thought=thought)


def _call(one: Any) -> tuple[str, str]:
    call = json.loads(one) if isinstance(one, str) else one
    call = call.get("function", call)
    arguments = call.get("arguments", call.get("parameters", {}))
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return str(call["name"]), json.dumps(arguments, ensure_ascii=False)


def _tools(cell: Any) -> tuple[str, ...]:
    tools = json.loads(cell) if isinstance(cell, str) and cell.strip() else cell or ()
    return tuple(json.dumps(tool, ensure_ascii=False) for tool in tools)


def _add(
    found: _Found, row: dict[str, Any], place: tuple[int, int], where: str, labelled: bool, repair: bool
) -> None:
    try:
        one = conversation(row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found.flaws.append((where, f"it cannot be read: {error}"))
        return
    if repair:
        one = Conversation(mended(one.messages, found.mended), one.tools)
    if labelled:
        kept = len(one.messages)
        while kept and one.messages[kept - 1].role in ("user", "tool"):
            kept -= 1
        if 0 < kept < len(one.messages):
            found.open_ends += 1
            one = Conversation(one.messages[:kept], one.tools)
    else:
        one = question_of(one)
    flaw = flaw_of(one, labelled=labelled)
    if flaw:
        found.flaws.append((where, flaw))
        return
    found.items.append(one)
    found.places.append(place)


def flaw_of(one: Conversation, *, labelled: bool = True) -> str:
    """What is wrong with a conversation; empty where nothing is."""
    sides = Counter(message.role for message in one.messages)
    if labelled and not sides["assistant"]:
        return "there is no reply, only one side speaks"
    if labelled and not any(m.learned for m in one.messages if m.role == "assistant"):
        return "all replies have the weight 0"
    if not sides["user"]:
        return "nobody asks, only one side speaks"
    last = ""
    for i, message in enumerate(one.messages, 1):
        if message.role == "assistant" and not message.content.strip() and not message.calls:
            return f"the reply in message {i} is empty"
        if message.role == "user" and not message.content.strip():
            return f"the question in message {i} is empty"
        if message.role not in _NEXT[last]:
            allowed = " or ".join(_NEXT[last])
            behind = f"behind `{last.partition(' ')[0]}`" if last else "at the beginning"
            return f"roles are out of order: message {i} is `{message.role}`, {behind} stands {allowed}"
        last = "assistant calls" if message.calls else message.role
    return "" if labelled or last in ("user", "tool") else "the last message is a reply already"


_NEXT = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "assistant calls": ("tool",),
    "tool": ("assistant", "tool"),
}


def _judge(found: _Found, repair: bool) -> None:
    """Refuse conversations that cannot be used, or say that they are left out."""
    n = len(found.items) + len(found.flaws)
    if found.open_ends:
        found.notes.append(
            f"{found.open_ends:,} of {n:,} conversations end without a reply: what follows their last one is "
            "left out"
        )
    found.notes += said_of(found.mended)
    if not found.flaws:
        return
    where, flaw = found.flaws[0]
    if not repair:
        raise DataError(
            f"{where}: a conversation of questions and replies was wanted; {flaw}. {len(found.flaws):,} of "
            f"{n:,} conversations cannot be used. Mend them, or set `repair: true` "
            "(`task: {chat: {repair: true}}`): messages of one side in a row become one, others are left out."
        )
    kinds = Counter(flaw.partition(":")[0].partition(" in message")[0] for _, flaw in found.flaws)
    told = ", ".join(f"{count:,} as {kind}" for kind, count in kinds.most_common())
    found.notes.append(f"{len(found.flaws):,} of {n:,} conversations left out: {told} (such as {where})")
