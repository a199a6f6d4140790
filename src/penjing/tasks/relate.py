"""The relation between two entities of a text.

Legend: S sequences, T tokens, D width, C relations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import relations, taught
from penjing.data.align import pieces_of
from penjing.data.entities import Tagged
from penjing.data.relations import Related
from penjing.entities.relations import difference, is_directed, scores_of
from penjing.errors import DataError, SpecError
from penjing.models.heads import RelationHead
from penjing.models.load import Base
from penjing.models.queries import frame
from penjing.records import Batch, Loss, Part, Rows, Scores, Tokens
from penjing.task import Each, Fitted, Task
from penjing.tasks.classify import classify

SIGNS = ("@", "#")  # around the first and the second entity
KINDS = ("*", "^")  # around their types


def relate(
    *,
    markers: Literal["plain", "typed", "none"] = "plain",
    labels: list[str] | None = None,
    head_dropout: float = 0.1,
) -> Task:
    """Say in which relation two marked entities of a text stand (R-BERT, Wu & He 2019).

    markers: signs around both entities in the text the model reads (`plain`), with the entities' types
    (`typed`, Zhou & Chen 2022), or none. They are words that every base has, so nothing is added to it.
    labels: the relations in order; those of the train rows, sorted, when not given. Names that end with
    (e1,e2) or (e2,e1) have a direction, and Other is none, as in SemEval-2010 task 8. head_dropout: before
    each layer of the head.
    """
    plain = classify(labels=labels, head_dropout=head_dropout)

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
        items = relations.asked(rows.texts).items if rows.items is None else rows.items
        tokens, marks = _laid(base.tokenizer, items or [], rows, max_length, markers)
        targets = plain.encode(rows, names) if labelled else np.zeros(len(rows), dtype=np.int64)
        return Part(rows, tokens, targets, marks=marks)

    def head(width: int, names: list[str], pooling: str, dense: nn.Linear | None) -> nn.Module:
        return RelationHead(width, len(names), dropout=head_dropout, pool=pooling)

    def logits_of(model: Any, batch: Batch) -> Tensor:
        out: Tensor = model.head(model.states(batch), batch.lengths, batch.marks)
        return out

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.labels is not None
        logits = logits_of(model, batch)
        total = F.cross_entropy(logits, batch.labels, reduction="sum")
        return Loss(total / batch.n_targets, outputs=logits)

    def infer(model: nn.Module, each: Each, part: Part) -> np.ndarray:
        found = each(part, lambda batch: [*logits_of(model, batch).softmax(-1).double().cpu().numpy()])
        return np.stack(found) if found else np.zeros((0, 0))

    def score(
        p: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        return scores_of(p, targets, names, seed)

    def label_names(rows: Rows) -> list[str]:
        names = plain.label_names(rows)
        if markers == "typed" and not any(item.types != ("", "") for item in rows.items or ()):
            raise SpecError(
                "`relate.markers: typed` names the entities' types; no row says them. Give rows with `type` "
                "under head and tail, or use `markers: plain`."
            )
        return names

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        def versus(
            ours: np.ndarray,
            theirs: np.ndarray,
            targets: np.ndarray,
            chosen: dict[str, Any],
            their_chosen: dict[str, Any],
            seed: int,
        ) -> tuple[float, tuple[float, float]]:
            return difference(ours, theirs, targets, names, seed)

        return replace(task, difference=versus)

    def baseline(
        rows: Rows, targets: np.ndarray, names: list[str], seed: int
    ) -> Callable[[Rows], np.ndarray]:
        from penjing.baseline import fit_baseline

        fitted = fit_baseline(_between(rows), targets, len(names), multi_label=False, seed=seed)
        return Fitted(lambda rows: fitted(_between(rows)), fitted.notes)

    task = replace(
        plain,
        name="relate",
        rows=lambda source, *, labelled=True, **reading: relations.read(source, labelled=labelled, **reading),
        ask=relations.asked,
        teach=taught.related(),
        label_names=label_names,
        part=part,
        head=head,
        loss=loss,
        infer=infer,
        score=score,
        baseline=baseline,
        difference=None,
        bind=bind,
        untuned=None,
        best="official_f1",
    )
    return task


def pairs_of(entities: Sequence[dict[str, Any]], text: str, labels: Sequence[str]) -> list[tuple[int, int]]:
    """Which entities of a text are asked about together: each two that stand apart, in the order of the text
    where relations have directions of their own, else in both orders."""
    found = []
    for i, one in enumerate(entities):
        for j, other in enumerate(entities):
            apart = one["end"] <= other["start"] or other["end"] <= one["start"]
            if i != j and apart and (one["start"] < other["start"] or not is_directed(labels)):
                found.append((i, j))
    return found


def _between(rows: Rows) -> list[str]:
    """What a bag of words may know of a pair: the entities, and the words between them."""
    texts = []
    for item in rows.items or ():
        (a, b), (c, d) = item.first, item.second
        order = "then" if a < c else "before"
        middle = item.text[min(b, d) : max(a, c)]
        texts.append(f"{item.text[a:b]} {order} {item.text[c:d]} {' '.join(item.types)} | {middle}")
    return texts


def written(item: Related, markers: str) -> tuple[str, list[tuple[int, int]], int, int]:
    """The text as the model reads it, in segments, and which of them are the first and the second entity."""
    order = sorted(((*item.first, 0), (*item.second, 1)))
    text, segments, own = "", [], [0, 0]
    at = 0

    def add(piece: str) -> None:
        nonlocal text
        start = len(text) + len(piece) - len(piece.lstrip())
        text += piece
        end = len(text) - (len(piece) - len(piece.rstrip()))
        if start < end:
            segments.append((start, end))

    for start, end, k in order:
        add(item.text[at:start])
        if markers != "none":
            kind = (
                f" {KINDS[k]} {item.types[k].lower()} {KINDS[k]}"
                if markers == "typed" and item.types[k]
                else ""
            )
            add(f" {SIGNS[k]}{kind} ")
        own[k] = len(segments)
        add(item.text[start:end])
        if markers != "none":
            add(f" {SIGNS[k]} ")
        at = end
    add(item.text[at:])
    return text, segments, own[0], own[1]


def _laid(
    tokenizer: Any, items: Sequence[Related], rows: Rows, max_length: int, markers: str
) -> tuple[Tokens, np.ndarray]:
    """Tokens, and (S, 4) where the entities' pieces stand in each sequence."""
    before, after = frame(tokenizer)
    room = max_length - len(before) - len(after)
    laid = [written(item, markers) for item in items]
    ids: list[list[int]] = []
    marks = np.zeros((len(items), 4), dtype=np.int64)
    cut = 0
    asked = [Tagged(text, tuple(segments), ()) for text, segments, _, _ in laid]
    for row, (found, (_, segments, *own)) in enumerate(zip(pieces_of(tokenizer, asked), laid, strict=True)):
        ends = [*found.sites[1:], len(found.ids)]
        spans = []
        for k in own:
            site = next(
                (i for i, place in enumerate(found.places) if place[0] <= segments[k][0] < place[1]), None
            )
            if site is None:
                entity = asked[row].text[slice(*segments[k])]
                raise DataError(
                    f"{rows.where(row)}: this base's tokenizer makes no token of the entity {entity!r}. "
                    "Leave the row out, or take another base."
                )
            spans.append((found.sites[site], ends[site]))
        pieces, spans, is_cut = _fitted(found.ids, spans, room)
        cut += is_cut
        ids.append([*before, *pieces, *after])
        marks[row] = [place + len(before) for span in spans for place in span]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    dtype = np.uint16 if len(tokenizer) < 65536 else np.int32
    return Tokens(np.fromiter((i for one in ids for i in one), dtype, int(starts[-1])), starts, cut), marks


def _fitted(
    ids: list[int], spans: list[tuple[int, int]], room: int
) -> tuple[list[int], list[tuple[int, int]], bool]:
    """At most `room` pieces with both entities among them: those around them, or, where they stand too far
    apart, those around each."""
    if len(ids) <= room:
        return ids, spans, False
    low, high = min(a for a, _ in spans), max(b for _, b in spans)
    if high - low <= room:
        start = min(max(0, low - (room - (high - low)) // 2), len(ids) - room)
        kept = [*range(start, start + room)]
    else:
        half = room // 2
        early, late = sorted(spans)
        first = max(0, min(early[0], early[1] - half))
        last = min(len(ids), max(late[1], late[0] + room - half))
        kept = [*range(first, first + half), *range(last - (room - half), last)]
    place = {piece: i for i, piece in enumerate(kept)}
    moved = []
    for a, b in spans:
        inside = [place[i] for i in range(a, b) if i in place]
        moved.append((inside[0], inside[-1] + 1))
    return [ids[i] for i in kept], moved, True
