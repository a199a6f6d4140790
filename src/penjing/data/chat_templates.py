"""One template writes conversations for training, evaluation, export and serving.

It is the tokenizer's own, or a named one, which then becomes the tokenizer's own and is saved with it. What a
model learns of a conversation are the tokens of its replies, each with the token that stops it: found by
writing the conversation up to the question with the words that ask for a reply, and up to the reply, or by
the template's own generation tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from penjing.data.messages import Conversation, Message
from penjing.data.named_templates import MARKS, NAMED
from penjing.data.tokenize import backend_of, own_backend
from penjing.errors import DataError, NotSupported, SpecError, nearest
from penjing.models.queries import frame

_WHOLE = 1 << 30
_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Written:
    """A conversation as tokens. `learned`: which of them a reply that is learned consists of, its stop token
    too; `replies`: (first, the one after the last) of each reply."""

    ids: np.ndarray  # (T,) int64
    learned: np.ndarray  # (T,) bool
    replies: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Template:
    """How conversations become tokens. `stops` are the ids that end a reply."""

    name: str
    tokenizer: Any
    stops: frozenset[int]

    @property
    def thinks(self) -> bool:
        """Whether it writes what was thought before a reply."""
        return "reasoning_content" in (self.tokenizer.chat_template or "")

    def text(self, one: Conversation, *, ask: bool = False) -> str:
        """The conversation as the model reads it; `ask` adds what asks for a reply."""
        return _text(self.tokenizer, one.messages, one.tools, ask)

    def prompt(self, one: Conversation) -> list[int]:
        """Ids of a conversation up to the reply that is asked for."""
        ids: list[int] = (
            own_backend(self.tokenizer, _WHOLE).encode(self.text(one, ask=True), add_special_tokens=False).ids
        )
        return ids

    def write(self, one: Conversation) -> Written:
        """The conversation as tokens.

        Raises:
            NotSupported: which tokens are of replies cannot be told, or the template leaves a reply out.
            DataError: a reply has no token that stops it.
        """
        text = self.text(one)
        found = own_backend(self.tokenizer, _WHOLE).encode(text, add_special_tokens=False)
        ids = np.array(found.ids, dtype=np.int64)
        begins = np.array([a for a, _ in found.offsets], dtype=np.int64)
        ends = np.array([b for _, b in found.offsets], dtype=np.int64)
        learned = np.zeros(len(ids), dtype=bool)
        tagged = _TAG.search(self.tokenizer.chat_template or "") is not None
        spans = self._tagged(one, text) if tagged else self._spans(one, text)
        self._check_whole(one, [text[start:stop] for start, stop in spans])
        replies = []
        for (start, stop), kept in zip(spans, self._kept(one, len(spans)), strict=True):
            inside = np.flatnonzero((begins >= start) & (ends <= stop) & (ends > begins))
            stops = [int(place) for place in inside if int(ids[place]) in self.stops]
            if not stops:
                raise DataError(
                    f"A token that stops the reply was wanted behind {text[start:stop][-40:]!r}; the "
                    f"template `{self.name}` puts none there, so the model would never learn to stop. Use "
                    f"another `chat.template` ({', '.join(NAMED)})."
                )
            # Tags say themselves what else is learned behind the stop token, such as a line end.
            end = int(inside[-1]) + 1 if tagged else stops[-1] + 1
            replies.append((int(inside[0]), end))
            learned[inside[0] : end] = kept
        return Written(ids, learned, tuple(replies))

    def _kept(self, one: Conversation, n_spans: int) -> list[bool]:
        """Of each span, whether its reply is learned."""
        kept = [message.learned for message in one.messages if message.role == "assistant"]
        if len(kept) == n_spans:
            return kept
        if all(kept):
            return [True] * n_spans
        raise NotSupported(
            f"A reply has the weight 0; the template `{self.name}` marks {n_spans} places for {len(kept)} "
            f"replies, so which is which cannot be told. Use another `chat.template` ({', '.join(NAMED)})."
        )

    def _check_whole(self, one: Conversation, written: list[str]) -> None:
        """No part of a reply may be lost on the way."""
        replies = [message for message in one.messages if message.role == "assistant"]
        each = written if len(written) == len(replies) else ["".join(written)] * len(replies)
        for message, found in zip(replies, each, strict=True):
            wanted = [message.content.strip(), *(tool for tool, _ in message.calls)]
            wanted += [message.thought.strip()] if self.thinks else []
            lost = next((part for part in wanted if part and part not in found), None)
            if lost is not None:
                raise NotSupported(
                    f"The template `{self.name}` was to write the reply {lost[:60]!r} as it is; it wrote "
                    f"{found[:60]!r}. A part would never be learned: use another `chat.template` "
                    f"({', '.join(NAMED)})."
                )

    def _spans(self, one: Conversation, text: str) -> list[tuple[int, int]]:
        """(first character, the one after the last) of each reply with what stops it."""
        spans = []
        for i, message in enumerate(one.messages):
            if message.role != "assistant":
                continue
            before = _text(self.tokenizer, one.messages[:i], one.tools, True)
            upto = _text(self.tokenizer, one.messages[: i + 1], one.tools, False)
            if not (upto.startswith(before) and text.startswith(upto)):
                raise NotSupported(
                    f"The template `{self.name}` writes message {i + 1} otherwise when more follow, so which "
                    "tokens are of replies cannot be told. Take a template with generation tags, or "
                    f"`chat.template` {', '.join(NAMED)}."
                )
            spans.append((len(before), len(upto)))
        return spans

    def _tagged(self, one: Conversation, text: str) -> list[tuple[int, int]]:
        """Spans by the template's own tags, each with the stop token behind it."""
        from transformers.utils.chat_template_utils import render_jinja_template

        _, found = render_jinja_template(
            conversations=[_plain(one.messages)],
            tools=[json.loads(tool) for tool in one.tools] or None,
            chat_template=self.tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        stops = [self.tokenizer.convert_ids_to_tokens(stop) for stop in self.stops]
        spans: list[tuple[int, int]] = []
        for start, stop in found[0]:
            behind = next((s for s in stops if text.startswith(s, stop)), "")
            if spans and not any(s in text[start : stop + len(behind)] for s in stops):
                spans[-1] = (spans[-1][0], stop)  # a closing tag of its own, such as an end of the text
            else:
                spans.append((start, stop + len(behind)))
        return spans


def template_of(tokenizer: Any, name: str = "auto") -> Template:
    """A tokenizer's template: its own (`auto`) or a named one, which becomes its own.

    Raises:
        SpecError: no such name. NotSupported: the tokenizer has none, lacks the tokens of the named one, or
            no token stops a reply.
    """
    if backend_of(tokenizer) is None:
        raise NotSupported(
            f"Replies are places in a text; {type(tokenizer).__name__} does not tell where its pieces stand. "
            "Take a base with a fast tokenizer (tokenizer.json)."
        )
    if name == "auto":
        if not tokenizer.chat_template:
            fits = [one for one in NAMED if not _lacking(tokenizer, one)]
            raise NotSupported(
                "A chat template was wanted; the base's tokenizer has none. Name one: "
                f"`task: {{chat: {{template: {fits[0] if fits else 'alpaca'}}}}}` (of {', '.join(NAMED)} "
                f"fit: {', '.join(fits) or 'none'})."
            )
    elif name not in NAMED:
        raise SpecError(
            f"`chat.template` is {name!r}; known are auto, {', '.join(NAMED)}.{nearest(name, NAMED)} Give "
            "one of these."
        )
    else:
        lacking = _lacking(tokenizer, name)
        if lacking:
            raise NotSupported(
                f"The template `{name}` is made of tokens; this tokenizer lacks {', '.join(lacking)}. "
                "Use `template: alpaca`, which needs only an end token, or a base with these."
            )
        tokenizer.chat_template = _lead(tokenizer) + NAMED[name]
    return Template(name, tokenizer, _stops(tokenizer, name))


def _lacking(tokenizer: Any, name: str) -> list[str]:
    known = tokenizer.get_vocab()
    lacking = [mark for mark in MARKS[name] if mark not in known]
    return lacking + (["end token (eos)"] if name == "alpaca" and tokenizer.eos_token is None else [])


def _lead(tokenizer: Any) -> str:
    """The tokens that this tokenizer puts before every text, as a piece of template."""
    before, _ = frame(tokenizer)
    return "".join("{{- '" + token + "' }}" for token in tokenizer.convert_ids_to_tokens(list(before)))


def _stops(tokenizer: Any, name: str) -> frozenset[int]:
    """The special token that follows a reply, found by writing one."""
    probe = (Message("user", "a"), Message("assistant", "reply"))
    text = _text(tokenizer, probe, (), False)
    at = text.rfind("reply") + len("reply")
    rest = own_backend(tokenizer, _WHOLE).encode(text[at:], add_special_tokens=False)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    stop = next((token for token in rest.ids if token in special), None)
    if stop is None:
        raise NotSupported(
            f"A token that stops a reply was wanted; the template `{name}` writes {text[at:][:40]!r} behind "
            f"one, which holds no special token, so the model would never stop. Use another `chat.template` "
            f"({', '.join(NAMED)})."
        )
    return frozenset({stop})


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates take them."""
    plain: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thought:
            one["reasoning_content"] = message.thought
        if message.calls:
            one["tool_calls"] = [
                {"type": "function", "function": {"name": tool, "arguments": json.loads(given)}}
                for tool, given in message.calls
            ]
        plain.append(one)
    return plain


def _text(tokenizer: Any, messages: Sequence[Message], tools: Sequence[str], ask: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            _plain(messages),
            tools=[json.loads(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=ask,
        )
    except TemplateError as error:
        raise NotSupported(
            f"The base's chat template was to write {' · '.join(m.role for m in messages)}; it refuses: "
            f"{error}. Use another `chat.template` ({', '.join(NAMED)})."
        ) from error
    return text


def fitted(template: Template, one: Conversation, room: int) -> tuple[Written | None, int]:
    """The conversation in at most `room` tokens, without as many of its oldest turns as that needs, and how
    many messages those were; None where even its last turn does not fit. A system message stays."""
    written = template.write(one)
    if len(written.ids) <= room:
        return written, 0
    lead = 1 if one.messages[0].role == "system" else 0
    turns = [i for i, message in enumerate(one.messages) if message.role == "user"]
    for _, start in pairwise(turns):
        shorter = Conversation((*one.messages[:lead], *one.messages[start:]), one.tools)
        written = template.write(shorter)
        if len(written.ids) <= room:
            return written, start - lead
    return None, 0
