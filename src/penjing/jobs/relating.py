"""Relations on raw text: one bundle finds the entities, another says how each two of them stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penjing.bundle import Bundle
from penjing.data.relations import Related
from penjing.entities.relations import is_other
from penjing.errors import NotSupported
from penjing.tasks.relate import pairs_of

MOST_PAIRS = 200  # of one text: the surest entities are asked about first


def relations(finder: Bundle, relater: Bundle, texts: Sequence[str]) -> list[dict[str, Any]]:
    """One answer a text: `entities` as `finder` gives them, and `relations`, each with the places of its
    `head` and `tail` among them, `label` and `confidence`; pairs that stand in none are left out.

    Raises:
        NotSupported: the bundles' tasks are others than `tag` and `relate`.
        DataError: not texts.
    """
    for bundle, task, does in ((finder, "tag", "find entities"), (relater, "relate", "relate them")):
        if bundle.task.name != task:
            raise NotSupported(
                f"A bundle of `task: {task}` was wanted to {does}; {bundle.folder} is one of "
                f"`{bundle.task.name}`. Give the bundle that relates first, and the one that finds with "
                "`--with`."
            )
    found = finder.predict(texts)
    asked: list[Related] = []
    places: list[tuple[int, int, int]] = []
    for row, (text, answer) in enumerate(zip(texts, found, strict=True)):
        entities = answer["entities"]
        pairs = pairs_of(entities, text, relater.labels)
        pairs.sort(key=lambda pair: -min(entities[k]["confidence"] for k in pair))
        for i, j in pairs[:MOST_PAIRS]:
            (a, b), (c, d) = ((entities[k]["start"], entities[k]["end"]) for k in (i, j))
            asked.append(Related(text, (a, b), (c, d), (entities[i]["label"], entities[j]["label"])))
            places.append((row, i, j))
    answers = relater.predict(asked) if asked else []
    for answer in found:
        answer["relations"] = []
    for (row, i, j), said in zip(places, answers, strict=True):
        if not is_other(said["label"]):
            one = {"head": i, "tail": j, "label": said["label"], "confidence": said["confidence"]}
            found[row]["relations"].append(one)
    return found


def line_of(answer: dict[str, Any]) -> str:
    """`audits Message-Topic(e1,e2) waste 0.912; …`, or `(none)`."""
    entities = answer["entities"]
    said = (
        f"{entities[r['head']]['text']} {r['label']} {entities[r['tail']]['text']} {r['confidence']:.3f}"
        for r in answer["relations"]
    )
    return "; ".join(said) or "(none)"
