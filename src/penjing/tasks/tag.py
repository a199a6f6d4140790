"""Named entities and slots: spans of a text and what they are; with an intent, the whole sentence's too.

Legend: S sequences, T tokens, N sites (places that get a tag), C outputs a site, K intents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import align, tagged, taught
from penjing.data.entities import Entity, Tagged
from penjing.entities.answers import INTENT, answer_of, apart, line_of, wrong_of
from penjing.entities.scores import Said, Truth, difference, scores_of
from penjing.errors import DataError, SpecError, nearest
from penjing.models.heads import ClassHead, TagHead
from penjing.models.load import Base
from penjing.models.tagging import Tagging, by_ends, by_tags, numbers_of, placed
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Each, Fitted, Task


def tag(
    *,
    decode: Literal["bio", "bioes", "span"] = "bio",
    crf: bool = False,
    units: Literal["words", "characters", "pieces"] = "words",
    intent: bool | str = False,
    intent_weight: float = 1.0,
    labels: list[str] | None = None,
    overlap: float = 0.25,
    repair: bool = False,
    head_dropout: float = 0.1,
) -> Task:
    """Find named entities or slots in texts; with `intent`, the intent of each text, too.

    decode: a tag a word (`bio`, `bioes`), or where spans begin and end (`span`), which lets entities of
    unequal labels overlap. crf: learn which tags follow each other (Lafferty et al. 2001). units: what gets a
    tag: words, by their first piece; characters; or every piece. intent: learn a label of the whole sentence
    beside the entities (JointBERT, Chen et al. 2019); its column, or true to find it. intent_weight: of its
    loss. labels: the entities' names in order, then the intents', each after `intent:` and a blank; those of
    the train rows when not given. overlap: share of a window that long texts' windows have in common.
    repair: mend tags and spans that contradict themselves.
    head_dropout: before the last layer.
    """
    if crf and decode == "span":
        raise SpecError("`tag.crf` scores neighbouring tags; `decode: span` has none. Use bio or bioes.")
    for name, value, most in (("overlap", overlap, 0.5), ("head_dropout", head_dropout, 0.99)):
        if not 0 <= value <= most:
            raise SpecError(f"`tag.{name}` must lie between 0 and {most:g}; it is {value:g}. Leave it out.")
    if intent_weight <= 0:
        raise SpecError(f"`tag.intent_weight` must be above 0; it is {intent_weight:g}. 1 is usual.")
    cut = "characters" if units == "characters" else "words"

    @cache
    def tagging(n_labels: int) -> Tagging:
        return by_ends(n_labels) if decode == "span" else by_tags(n_labels, decode)

    def read(source: Any, *, labelled: bool = True, **reading: Any) -> Rows:
        return tagged.read(
            source,
            labelled=labelled,
            intent=intent,
            units=cut,
            overlaps=decode == "span",
            repair=repair,
            **reading,
        )

    def ask(inputs: Sequence[Any]) -> Rows:
        return tagged.asked(inputs, units=cut)

    def items_of(rows: Rows) -> list[Tagged]:
        return ask(rows.texts).items or [] if rows.items is None else rows.items

    def label_names(rows: Rows) -> list[str]:
        wanted, intents = apart(labels or [])
        found = sorted({entity.label for item in items_of(rows) for entity in item.entities})
        if not found:
            raise DataError(
                f"At least one entity was wanted in the train rows; {len(rows):,} rows hold none. Check "
                "`data.label` (the column of tags or entities), or add rows with entities."
            )
        for name in found if wanted else ():
            if name not in wanted:
                raise _unknown(rows, items_of(rows), name, wanted, "`tag.labels`")
        whole = sorted({name for row in rows.labels for name in row} - {*intents}) if intent else []
        return [*(wanted or found), *(INTENT + name for name in [*intents, *whole])]

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        kinds, whole = apart(names)
        place = {name: i for i, name in enumerate(kinds)}
        intents = {name: i for i, name in enumerate(whole)}
        targets = np.empty(len(rows), dtype=object)
        for i, item in enumerate(items_of(rows)):
            strange = next((e.label for e in item.entities if e.label not in place), None)
            if strange is not None:
                raise _unknown(rows, items_of(rows), strange, kinds, "training")
            own = rows.labels[i][0] if intents and rows.labels[i] else ""
            if intents and own not in intents:
                raise DataError(
                    f"{rows.where(i)}: the intent `{own}` is not among the {len(whole)} of training."
                    f"{nearest(own, whole)} Mend the row, leave it out, train with such rows, or name it in "
                    "`labels`."
                )
            spans = frozenset((e.start, e.end, place[e.label]) for e in item.entities)
            targets[i] = Truth(spans, intents.get(own, -1))
        return targets

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool) -> Part:
        items = items_of(rows)
        every = units == "pieces"
        laid = align.lay(base.tokenizer, items, max_length=max_length, overlap=overlap, every=every)
        read_rows = [replace(item, sites=places) for item, places in zip(items, laid.places, strict=True)]
        rows = replace(rows, items=read_rows)
        if not labelled:
            return Part(rows, laid.tokens, np.zeros(len(rows), dtype=np.int64), owners=laid.owners)
        kinds, whole = apart(names)
        targets = encode(rows, names)
        numbers, notes = numbers_of(tagging(len(kinds)), read_rows, targets, spread=decode == "span")
        asked = laid.tokens.labels
        assert asked is not None
        learned = asked.copy()
        learned[asked == 0] = numbers  # windows of a row own its sites in order
        marks = None
        if whole:
            first = np.diff(laid.owners, prepend=-1) > 0
            marks = np.where(first, [targets[row].intent for row in laid.owners], -100)
        rows = replace(rows, notes=(*rows.notes, *notes))
        tokens = replace(laid.tokens, labels=learned)
        return Part(rows, tokens, targets, owners=laid.owners, marks=marks)

    def learned(part: Part, sequence: int, names: list[str]) -> tuple[str, list[str]]:
        kinds, whole = apart(names)
        tokens = part.tokens
        assert tokens.labels is not None
        own = tokens.labels[tokens.starts[sequence] : tokens.starts[sequence + 1]]
        each = ["" if number < 0 else tagging(len(kinds)).say(int(number), kinds) for number in own]
        intent = -100 if part.marks is None else int(part.marks[sequence])
        return "" if intent < 0 else whole[intent], each

    def head(width: int, names: list[str], pooling: str, dense: nn.Linear | None) -> nn.Module:
        kinds, whole = apart(names)
        over = None
        if whole:
            own = dense if pooling == "cls" else None
            over = ClassHead(width, len(whole), pooling=pooling, dropout=head_dropout, dense=own)
        n = tagging(len(kinds)).n_outputs
        return TagHead(width, n, dropout=head_dropout, crf=crf, whole=over)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        logits_TC, logits_SK = model(batch)
        assert batch.labels is not None
        counts = _counts(batch)
        asked = batch.labels != -100
        n_labels = _n_labels(logits_TC.shape[1], decode)
        total = tagging(n_labels).loss(logits_TC[asked], batch.labels[asked], counts, _moves(model))
        mean = total / max(batch.n_targets, 1)
        parts = {"entities": float(mean.detach())}
        if logits_SK is not None and batch.marks is not None:
            # A sentence counts as often as it has sites, so that micro-batches add up to the whole.
            each = F.cross_entropy(logits_SK, batch.marks, reduction="none", ignore_index=-100)
            weights = torch.tensor(counts, dtype=each.dtype, device=each.device)
            own = (each * weights).sum() / max(batch.n_targets, 1)
            mean, parts = mean + intent_weight * own, parts | {"intent": float(own.detach())}
        return Loss(mean, parts, outputs=logits_TC)

    def infer(model: nn.Module, each: Each, part: Part) -> list[Said]:
        def compute(batch: Batch) -> list[tuple[Tensor, Tensor | None]]:
            logits_TC, logits_SK = model(batch)
            own = logits_TC[batch.labels != -100].float().cpu().split(_counts(batch))
            whole = [None] * len(own) if logits_SK is None else [*logits_SK.float().softmax(-1).cpu()]
            return [*zip(own, whole, strict=True)]

        said = each(part, compute)
        items = part.rows.items or []
        pieces: list[list[Tensor]] = [[] for _ in items]
        intents: list[np.ndarray | None] = [None] * len(items)
        owners = np.arange(len(part)) if part.owners is None else part.owners
        for (logits, whole), row in zip(said, owners, strict=True):
            if whole is not None and not pieces[row]:  # the first window says it
                intents[row] = whole.double().numpy()
            pieces[row].append(logits)
        found = [torch.cat(own) for own in pieces]
        if not found:
            return []
        spans = tagging(_n_labels(found[0].shape[1], decode)).decode(found, _moves(model, cpu=True))
        return [
            Said(item.text, placed(item, own), share)
            for item, own, share in zip(items, spans, intents, strict=True)
        ]

    def score(
        found: list[Said], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        return scores_of(found, targets, *apart(names), seed)

    def answers(found: list[Said], names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
        kinds, whole = apart(names)
        return [answer_of(one, kinds, whole) for one in found]

    def mistakes(
        found: list[Said], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
    ) -> list[dict[str, Any]]:
        kinds, whole = apart(names)
        return [
            {"where": rows.where(i), "text": one.text[:600], **wrong}
            for i, one in enumerate(found)
            if (wrong := wrong_of(one, targets[i], kinds, whole))
        ]

    def versus(
        ours: list[Said],
        theirs: list[Said],
        targets: np.ndarray,
        chosen: dict[str, Any],
        their_chosen: dict[str, Any],
        seed: int,
    ) -> tuple[float, tuple[float, float]]:
        return difference(ours, theirs, targets, seed)

    def baseline(
        rows: Rows, targets: np.ndarray, names: list[str], seed: int
    ) -> Callable[[Rows], list[Said]]:
        from penjing.baseline import fit_baseline
        from penjing.baselines.entities import fit_tagger

        kinds, whole = apart(names)
        intents, notes = None, tuple[str, ...]()
        if whole:
            wanted = np.array([target.intent for target in targets])
            texts = fit_baseline(rows.texts, wanted, len(whole), multi_label=False, seed=seed)
            intents, notes = (whole, texts), texts.notes
        fitted = fit_tagger(items_of(rows), targets, len(kinds), intents=intents, seed=seed)
        return Fitted(lambda rows: fitted.tag(items_of(rows)), (*fitted.notes, *notes))

    def reference(part: Part, names: list[str]) -> dict[str, Any]:
        counts = Counter(label for target in part.targets for _, _, label in target.entities)
        kinds, _ = apart(names)
        n = max(1, len(part.targets))
        return {"entities_a_row": {name: counts[i] / n for i, name in enumerate(kinds)}}

    def outlets(names: list[str]) -> list[list[str]]:
        kinds, whole = apart(names)
        return [tagging(len(kinds)).outlets(kinds), whole]

    return Task(
        name="tag",
        rows=read,
        ask=ask,
        label_names=label_names,
        encode=encode,
        part=part,
        learned=learned,
        head=head,
        loss=loss,
        infer=infer,
        score=score,
        answers=answers,
        say=line_of,
        mistakes=mistakes,
        difference=versus,
        baseline=baseline,
        reference=reference,
        teach=taught.entities(intent=intent),
        outlets=outlets,
        best="micro_f1",
        outputs="" if crf or intent or decode == "span" else "classes",
    )


def _n_labels(n_outputs: int, decode: str) -> int:
    return n_outputs // 2 - 1 if decode == "span" else (n_outputs - 1) // (4 if decode == "bioes" else 2)


def _moves(model: Any, *, cpu: bool = False) -> Tensor | None:
    """The head's scores of transitions; None without a CRF."""
    moves: Tensor | None = model.head.transitions
    return moves.detach().float().cpu() if cpu and moves is not None else moves


def _counts(batch: Batch) -> list[int]:
    """Sites of each sequence."""
    assert batch.labels is not None
    asked = (batch.labels != -100).cpu()
    return [int(own.sum()) for own in asked.split(batch.lengths.tolist())]


def _unknown(rows: Rows, items: Sequence[Tagged], name: str, known: list[str], where: str) -> DataError:
    def has(entities: Sequence[Entity]) -> bool:
        return any(entity.label not in known for entity in entities)

    at = next(i for i, item in enumerate(items) if any(e.label == name for e in item.entities))
    others = sum(has(item.entities) for item in items)
    return DataError(
        f"{rows.where(at)}: the entity label `{name}` is not among the {len(known)} of {where}."
        f"{nearest(name, known)} {others:,} of {len(rows):,} rows have such a label. Mend them, leave them "
        "out, or train with them; where all are named in the task's `labels`, they count as missed."
    )
