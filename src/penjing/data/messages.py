"""Messages and conversations of them, and how those are mended that people have without thinking of models:
with greetings, and several messages in a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from penjing.plural import counted

_SAID = {
    "greeted": "nobody asks at first: what is said before is left out",
    "merged": "one side speaks several times in a row: read as one message",
}


@dataclass(frozen=True)
class Message:
    """What one side says. `calls` of a reply are (tool, arguments as JSON); with `learned` False (OpenAI's
    `weight: 0`) it is read and not learned. `thought`: what was thought before it (`reasoning_content`)."""

    role: str  # system, user, assistant or tool
    content: str
    calls: tuple[tuple[str, str], ...] = ()
    learned: bool = True
    thought: str = ""


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the tools that were on offer, as JSON."""

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()


def mended(messages: tuple[Message, ...], counts: Counter[str]) -> tuple[Message, ...]:
    """Without what is said before anybody asks, such as a greeting, and what one side says several times in a
    row as one message, line by line; calls of tools stay apart. Conversations of either kind are counted."""
    lead = messages[:1] if messages[:1] and messages[0].role == "system" else ()
    rest = messages[len(lead) :]
    greets = [message.role == "assistant" and not message.calls for message in rest]
    asked = greets.index(False) if False in greets else 0
    found: list[Message] = [*lead]
    for message in rest[asked:]:
        last = found[-1] if found else message
        same = last.role == message.role in ("user", "assistant") and last.learned == message.learned
        if found and same and not (last.calls or message.calls or last.thought or message.thought):
            found[-1] = replace(last, content="\n".join(filter(str.strip, (last.content, message.content))))
        else:
            found.append(message)
    counts.update(greeted=asked > 0, merged=len(found) < len(messages) - asked)
    return tuple(found)


def said_of(counts: Counter[str]) -> list[str]:
    """What was mended, in words."""
    return [
        f"{counted(counts[key], 'conversation')} in which {what}"
        for key, what in _SAID.items()
        if counts[key]
    ]
