"""Rows as JSON objects that the tasks' readers read back, and what people say of answers as such rows.

A truth has the form in which the task answers: who corrects what is wrong in an answer has said it. To let
another task learn from what is said of its answers: one function here, and `teach=` in the task's file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from penjing.data.conll import laid_out
from penjing.data.conversations import question_of
from penjing.data.entities import entities_in
from penjing.data.labels import label_names
from penjing.data.messages import Conversation, Message
from penjing.data.relations import Related
from penjing.entities.answers import INTENT
from penjing.errors import DataError
from penjing.records import Rows
from penjing.task import Teach

Fields = dict[str, Any]


def texts(*, multi_label: bool) -> Teach:
    """Rows of a text and its label; with `multi_label` any number of them."""

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        return {**asked, "label": several(truth) if multi_label else one(truth)}

    def truths(rows: Rows) -> list[Any]:
        return [list(own) if multi_label else own[0] for own in rows.labels]

    return _teach(_texts, truths, row, text="text", label="label")


def pairs(*, scores: bool) -> Teach:
    """Rows of two texts and a label, or with `scores` a number."""

    def asked(rows: Rows) -> list[Fields]:
        return [{"text_a": item[0], "text_b": item[1]} for item in rows.items or ()]

    def truths(rows: Rows) -> list[Any]:
        return [float(item[2][0]) for item in rows.items or ()] if scores else [own[0] for own in rows.labels]

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        return {**asked, "label": number(truth) if scores else one(truth)}

    return _teach(asked, truths, row, text="text_a+text_b", label="label")


def numbers() -> Teach:
    """Rows of a text and a number, or one a name."""

    def truths(rows: Rows) -> list[Any]:
        each = [{name: float(x) for name, x in item.items()} for item in rows.items or ()]
        return [next(iter(own.values())) if len(own) == 1 else own for own in each]

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        told = dict.fromkeys(names, truth) if len(names) == 1 and not isinstance(truth, dict) else truth
        if not isinstance(told, dict) or {*told} != {*names}:
            raise _other(f"a number for each of {', '.join(names)}", truth)
        return {**asked, **{name: number(told[name]) for name in names}}

    return replace(
        _teach(_texts, truths, row), columns=lambda names: {"text": "text", "label": "+".join(names)}
    )


def entities(*, intent: bool | str) -> Teach:
    """Rows of a text, or of tokens, and entities; with `intent` what the whole is, under that name."""
    key = intent if isinstance(intent, str) else "intent"

    def asked(rows: Rows) -> list[Fields]:
        def own(item: Any) -> Fields:
            return {"tokens": [item.text[a:b] for a, b in item.words]} if item.given else {"text": item.text}

        return [own(item) for item in rows.items or ()]

    def truths(rows: Rows) -> list[Any]:
        found = [
            [{"start": e.start, "end": e.end, "label": e.label, "text": item.text[e.start : e.end]}
             for e in item.entities]
            for item in rows.items or ()
        ]  # fmt: skip
        if not intent:
            return [*found]
        return [{"entities": e, "intent": own[0]} for e, own in zip(found, rows.labels, strict=True)]

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        whole = truth if isinstance(truth, dict) else {"entities": truth}
        if not isinstance(whole.get("entities"), list) or (intent and "intent" not in whole):
            wanted = (
                "{entities: […], intent: …}" if intent else "a list of {start, end, label}, empty for none"
            )
            raise _other(wanted, truth)
        text = asked["text"] if "text" in asked else laid_out(asked["tokens"])[0]
        try:
            found, flaws, _ = entities_in(whole["entities"], text)
        except (KeyError, TypeError, ValueError) as error:
            raise _other("a list of {start, end, label}", truth) from error
        if flaws:
            raise DataError(f"Entities were wanted where they stand in the text; {flaws[0]}. Mend them.")
        each = [{"start": e.start, "end": e.end, "label": e.label} for e in found]
        return {**asked, "entities": each, **({key: one(whole["intent"])} if intent else {})}

    def kinds(rows: Rows) -> list[tuple[str, ...]]:
        own = [{entity.label: None for entity in item.entities} for item in rows.items or ()]
        return [(*e, *(INTENT + name for name in names)) for e, names in zip(own, rows.labels, strict=True)]

    return replace(_teach(asked, truths, row), kinds=kinds)


def related() -> Teach:
    """Rows of a text, two entities in it, and their relation."""

    def asked(rows: Rows) -> list[Fields]:
        def side(place: tuple[int, int], kind: str) -> Fields:
            return {"start": place[0], "end": place[1], "type": kind}

        def own(item: Related) -> Fields:
            head, tail = side(item.first, item.types[0]), side(item.second, item.types[1])
            return {"text": item.text, "head": head, "tail": tail}

        return [own(item) for item in rows.items or ()]

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        return {**asked, "relation": one(truth)}

    return _teach(asked, lambda rows: [own[0] for own in rows.labels], row, text="text", label="relation")


def questions(*, placing: bool) -> Teach:
    """Rows of a question, a text, and the answers that are right; with `placing` they stand in it."""

    def asked(rows: Rows) -> list[Fields]:
        return [{"question": item.question, "context": item.context} for item in rows.items or ()]

    def truths(rows: Rows) -> list[Any]:
        return [
            [{"text": a.text, "answer_start": a.start} for a in item.answers] for item in rows.items or ()
        ]

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        told = ([truth] if truth else []) if isinstance(truth, str | dict) else truth
        if not isinstance(told, list):
            raise _other("an answer's text (empty: there is none), or a list of such", truth)
        each = [answer if isinstance(answer, dict) else {"text": answer} for answer in told]
        lost = next((e for e in each if not isinstance(e.get("text"), str) or not e["text"].strip()), None)
        if lost is not None or (placing and any(e["text"] not in asked["context"] for e in each)):
            raise _other("an answer that stands in its text", truth)
        starts = [e.get("answer_start", asked["context"].find(e["text"])) for e in each]
        answers = [{"text": e["text"], "answer_start": at} for e, at in zip(each, starts, strict=True)]
        return {**asked, "answers": answers}

    return _teach(asked, truths, row, text="question+context", label="answers")


def choices() -> Teach:
    """Rows of what is asked, the choices, and the right one."""

    def asked(rows: Rows) -> list[Fields]:
        return [{"question": item[0], "choices": [*item[1]]} for item in rows.items or ()]

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        there = asked["choices"]
        if isinstance(truth, int) and not isinstance(truth, bool) and 0 <= truth < len(there):
            truth = there[truth]
        if not isinstance(truth, str) or truth.strip() not in there:
            raise _other(f"one of the choices ({', '.join(there)[:80]}), or its place from 0", truth)
        return {**asked, "label": truth.strip()}

    return _teach(
        asked,
        lambda rows: [item[1][item[2]] for item in rows.items or ()],
        row,
        text="question",
        label="label",
    )


def sources() -> Teach:
    """Rows of a text and what is to be said of it."""

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        return {**asked, "target": words(truth)}

    return _teach(
        lambda rows: [{"source": item[0]} for item in rows.items or ()],
        lambda rows: [item[1] for item in rows.items or ()],
        row,
        text="source",
        label="target",
    )


def talks() -> Teach:
    """Conversations; a truth is the reply to the last question."""

    def asked(rows: Rows) -> list[Fields]:
        def own(item: Conversation) -> Fields:
            tools = {"tools": [json.loads(tool) for tool in item.tools]} if item.tools else {}
            return {"messages": [_plain(message) for message in question_of(item).messages], **tools}

        return [own(item) for item in rows.items or ()]

    def truths(rows: Rows) -> list[Any]:
        found = []
        for item in rows.items or ():
            last = item.messages[-1]
            found.append([_plain(last)] if last.calls else last.content)
        return found

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        said = truth if isinstance(truth, list) else [{"role": "assistant", "content": words(truth)}]
        return {**asked, "messages": [*asked["messages"], *said]}

    return _teach(asked, truths, row)


def belonging() -> Teach:
    """Rows of a text and one that belongs to it; a truth is such a text."""

    def asked(rows: Rows) -> list[Fields]:
        return [{"anchor": text} for text in rows.texts] if rows.items is None else [
            {"anchor": item[0]} for item in rows.items
        ]  # fmt: skip

    def row(asked: Fields, truth: Any, names: Sequence[str]) -> Fields:
        told = truth if isinstance(truth, dict) else {"positive": truth}
        return {**asked, "positive": words(told.get("positive")), "negatives": [*told.get("negatives", ())]}

    return replace(
        _teach(
            asked,
            lambda rows: [{"positive": b, "negatives": [*rest]} for _, b, rest in rows.items or ()],
            row,
            text="anchor+positive",
        ),
        many=True,
        kinds=lambda rows: [()] * len(rows),  # labels hold grades, which are no classes
    )


# ---- truths

SAID = ("label", "labels", "choice", "answer", "reply", "text")  # what an answer says, under one of these


def said_of(answer: Fields) -> Any:
    """What an answer says, in the form in which a truth is given: for people to correct. None where it says
    nothing of the kind (vectors)."""
    if "entities" in answer:
        places = ("start", "end", "label", "text")
        own = [{key: entity[key] for key in places if key in entity} for entity in answer["entities"]]
        return {"entities": own, "intent": answer["intent"]} if "intent" in answer else own
    key = next((key for key in SAID if key in answer), None)
    if key is not None:
        return answer[key]
    numbers = {name: x for name, x in answer.items() if isinstance(x, float | int) and name != "confidence"}
    return next(iter(numbers.values())) if len(numbers) == 1 else numbers or None


def same(answer: Fields, truth: Any) -> bool | None:
    """Whether an answer is right: labels, entities and choices that are all there; None of other answers,
    which are more or less near."""
    if "entities" in answer:
        whole = truth if isinstance(truth, dict) else {"entities": truth}
        ours, theirs = (
            {_entity(e) for e in found or () if isinstance(e, dict)}
            for found in (answer["entities"], whole.get("entities"))
        )
        return ours == theirs and answer.get("intent") == whole.get("intent", answer.get("intent"))
    if "choice" in answer:
        return bool(answer["index"] == truth if isinstance(truth, int) else answer["choice"] == truth)
    named = [answer["label"]] if "label" in answer else answer.get("labels")
    if named is None or isinstance(truth, dict):
        return None
    return {*map(str, named)} == {*label_names(truth, typed=True)}


def _entity(told: Fields) -> tuple[Any, ...]:
    """Where an entity stands and what it is; Label Studio's label is a list of one."""
    label = told.get("label")
    kind = label[0] if isinstance(label, list) and len(label) == 1 else label
    return told.get("start"), told.get("end"), str(kind)


def one(truth: Any) -> str:
    """One label's name."""
    if isinstance(truth, dict) or len(several(truth)) != 1:
        raise _other("one label", truth)
    return several(truth)[0]


def several(truth: Any) -> list[str]:
    """Names of labels, of which there may be none."""
    if isinstance(truth, dict):
        raise _other("a list of labels", truth)
    return [*label_names(truth, typed=True)]


def number(truth: Any) -> float:
    """A finite number."""
    try:
        found = float(truth)
    except (TypeError, ValueError) as error:
        raise _other("a number", truth) from error
    if isinstance(truth, bool) or found != found or abs(found) == float("inf"):
        raise _other("a finite number", truth)
    return found


def words(truth: Any) -> str:
    """A text with words in it."""
    if not isinstance(truth, str) or not truth.strip():
        raise _other("a text", truth)
    return truth


def _other(wanted: str, truth: Any) -> DataError:
    return DataError(
        f"What would have been right was wanted as {wanted}; it is {str(truth)[:60]!r}. Give it in the "
        "form in which the model answers."
    )


def _plain(message: Message) -> Fields:
    calls = [{"function": {"name": name, "arguments": json.loads(given)}} for name, given in message.calls]
    more = {**({"tool_calls": calls} if calls else {}), **({} if message.learned else {"weight": 0})}
    more |= {"reasoning_content": message.thought} if message.thought else {}
    return {"role": message.role, "content": message.content, **more}


def _texts(rows: Rows) -> list[Fields]:
    return [{"text": text} for text in rows.texts]


def _teach(
    asked: Callable[[Rows], list[Fields]],
    truths: Callable[[Rows], list[Any]],
    row: Callable[[Fields, Any, Sequence[str]], Fields],
    **columns: str,
) -> Teach:
    return Teach(asked, truths, row, lambda names: dict(columns))
