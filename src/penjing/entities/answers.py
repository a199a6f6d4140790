"""What is said of a row's entities to people: answers, one line of them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penjing.entities.scores import Said, Truth

INTENT = "intent: "  # before the names of intents, which stand behind those of entities


def apart(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The labels of entities, and the intents."""
    kinds = [name for name in names if not name.startswith(INTENT)]
    return kinds, [name.removeprefix(INTENT) for name in names if name.startswith(INTENT)]


def answer_of(one: Said, kinds: list[str], whole: list[str]) -> dict[str, Any]:
    """An answer as plain values: entities with text and confidence, and the intent where there is one."""
    answer: dict[str, Any] = {
        "entities": [
            {"start": a, "end": b, "label": kinds[label], "text": one.text[a:b], "confidence": p}
            for a, b, label, p in sorted(one.entities)
        ]
    }
    if one.intents is not None:
        best = int(one.intents.argmax())
        answer |= {"intent": whole[best], "confidence": float(one.intents[best])}
    return answer


def line_of(answer: dict[str, Any]) -> str:
    """`PlayMusic 0.998<TAB>westbam artist 0.981; google music service 0.992`."""
    found = "; ".join(f"{e['text']} {e['label']} {e['confidence']:.3f}" for e in answer["entities"])
    lead = f"{answer['intent']} {answer['confidence']:.3f}\t" if "intent" in answer else ""
    return lead + (found or "(none)")


def wrong_of(one: Said, truth: Truth, kinds: list[str], whole: list[str]) -> dict[str, Any] | None:
    """What a row's answer lacks and has too much, and how sure it was of that; None where all is right."""
    missed, extra = truth.entities - one.places, one.places - truth.entities
    given, said = (
        [f"{one.text[a:b]} ({kinds[label]})" for a, b, label in sorted(places)] for places in (missed, extra)
    )
    sure = [p for a, b, label, p in one.entities if (a, b, label) in extra]
    if one.intents is not None and int(one.intents.argmax()) != truth.intent:
        given.insert(0, whole[truth.intent])
        said.insert(0, whole[int(one.intents.argmax())])
        sure.append(float(one.intents.max()))
    if not given and not said:
        return None
    return {
        "given": ", ".join(given) or "none",
        "predicted": ", ".join(said) or "none",
        "confidence": max(sure, default=0.0),
    }
