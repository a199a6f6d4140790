"""Sentence embeddings: texts that belong together are drawn together, all others of a step pushed apart.

Legend: S rows, Q texts of a row, n texts of a step, N texts searched, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import taught
from penjing.data.batches import shuffled
from penjing.data.duplicates import near_groups
from penjing.data.read import read
from penjing.data.related import read_related
from penjing.data.tokenize import in_parts, tokenize
from penjing.errors import SpecError
from penjing.models.contrast import info_nce
from penjing.models.load import Base
from penjing.models.towers import Vectors
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Each, Task
from penjing.tasks.regress import refuse_delimiter

TRAIN = {"batch": 64}  # a step's rows are each other's negatives: more of them teach more
QUERIES = 256  # ranked at once


def embed(
    *,
    temperature: float = 0.05,
    both_ways: bool = True,
    dimensions: list[int] | None = None,
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
) -> Task:
    """Give each text a vector of length one, near those of texts that belong to it.

    Rows are an anchor, a positive and any number of negatives, or pairs with their relevance (`data.label`;
    0 is a negative); the other rows of a step are negatives, too.
    temperature: what cosines are divided by. both_ways: positives are to find their anchors, too. dimensions:
    learn these first parts of the vectors as well, such as [64, 128] (Matryoshka). pooling: as in `classify`.
    """
    if not temperature > 0:
        raise SpecError(f"`embed.temperature` must be above 0; it is {temperature}. 0.02 to 0.1 is usual.")
    if dimensions is not None and (not dimensions or min(dimensions) < 1):
        raise SpecError(f"`embed.dimensions` must be whole numbers above 0; it is {dimensions}. Mend them.")

    def rows(source: Any, *, labelled: bool = True, delimiter: str | None = None, **reading: Any) -> Rows:
        refuse_delimiter(delimiter)
        if not labelled:  # texts to embed: nothing need belong to them
            return read(source, labelled=False, **reading)
        return read_related(source, **reading)

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        too_wide = [one for one in dimensions or () if one > width]
        if too_wide:
            raise SpecError(
                f"`embed.dimensions` holds {too_wide[0]}; the base's vectors have {width}. Leave it out or "
                f"lower it."
            )
        return Vectors(base_pooling if pooling == "auto" else pooling)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        vectors = model(batch)  # (n, D)
        parts = [vectors]
        parts += [F.normalize(vectors[:, :one], dim=1) for one in dimensions or () if one < vectors.shape[1]]
        each = torch.stack([_contrast(own, batch, temperature, both_ways) for own in parts]).mean(0)
        return Loss(each.sum() / batch.n_targets)

    return Task(
        name="embed",
        rows=rows,
        part=_part,
        groups=_by_anchor,
        head=head,
        loss=loss,
        joint=True,
        order=shuffled,
        infer=_infer,
        score=_score,
        answers=_answers,
        say=_say,
        mistakes=_mistakes,
        difference=_difference,
        baseline=lambda rows, targets, names, seed: _bm25,
        untuned="own",
        teach=taught.belonging(),
        best="ndcg_10",
    )


@dataclass(frozen=True)
class Ranked:
    """What a row's anchor found as a query: ranks of what belongs to it (of nothing, where that is itself
    alone), and the text that came first. Rows of one anchor have the same."""

    query: str
    right: tuple[str, ...]
    ranks: np.ndarray  # (R,) from 1
    grades: np.ndarray  # (R,) what each right text is worth; 1 where nobody graded them
    first: str
    nearness: float  # of the first, as the system counts


def _by_anchor(rows: Rows) -> np.ndarray | None:
    """(n,) which rows have one anchor, or nearly equal ones: held-out rows ask what nothing was learned of.
    None of fewer than ten such."""
    groups = near_groups([item[0] for item in rows.items or ()])
    return groups if len(np.unique(groups)) >= 10 else None


def _part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
    """Rows of texts alone when nothing belongs to them; `marks` number the texts of a row, -1 where it has
    fewer than others."""
    if rows.items is None:
        tokens = tokenize(base.tokenizer, rows.texts, max_length=max_length, cache=False)
        return Part(rows, tokens, np.zeros(len(rows), np.int64))
    texts = [(a, b, *rest) for a, b, rest in rows.items]
    tokens = tokenize(base.tokenizer, [t for row in texts for t in row], max_length=max_length, cache=False)
    number: dict[str, int] = {}
    marks = np.full((len(texts), max(map(len, texts), default=2)), -1, np.int64)
    for i, row in enumerate(texts):
        marks[i, : len(row)] = [number.setdefault(text, len(number)) for text in row]
    return Part(
        rows, in_parts(tokens, [len(row) for row in texts]), np.zeros(len(rows), np.int64), marks=marks
    )


def _contrast(vectors_nD: Tensor, batch: Batch, temperature: float, both_ways: bool) -> Tensor:
    """(S,) losses of the rows of a step."""
    assert batch.marks is not None
    ends = torch.tensor(batch.ends(), device=vectors_nD.device)
    anchors, positives = ends[:-1], ends[:-1] + 1
    names_n = batch.marks[batch.marks >= 0]
    is_anchor = torch.zeros(len(names_n), dtype=torch.bool, device=ends.device)
    is_anchor[anchors] = True
    others = (~is_anchor).nonzero().flatten()
    own_S, right_S = names_n[anchors], names_n[positives]
    # A text is no negative of an anchor that it is a positive of, in any row, nor of itself.
    belongs = (own_S[:, None] == own_S[None, :]).float() @ (right_S[:, None] == names_n[others]).float() > 0
    same = belongs | (own_S[:, None] == names_n[others])
    right = positives[:, None] == others
    each = info_nce(vectors_nD[anchors], vectors_nD[others], right, same, temperature=temperature)
    if not both_ways:
        return each
    back = (right_S[:, None] == right_S[None, :]) | (own_S[:, None] == own_S[None, :])
    back |= right_S[:, None] == own_S[None, :]
    itself = torch.eye(len(own_S), dtype=torch.bool, device=ends.device)
    other_way = info_nce(vectors_nD[positives], vectors_nD[anchors], itself, back, temperature=temperature)
    return (each + other_way) / 2


def _infer(model: Any, each: Each, part: Part) -> Any:
    """(n, D) vectors of texts alone; of rows, what each one's anchor finds among all positives and negatives
    of the part."""
    if part.marks is None:
        return np.array([x.numpy() for x in each(part, lambda batch: model(batch).cpu())])

    def apart(batch: Batch) -> list[np.ndarray]:
        vectors, ends = model(batch).cpu().numpy(), batch.ends()
        return [vectors[a:b] for a, b in pairwise(ends)]

    vectors: dict[str, np.ndarray] = {}
    for item, own in zip(part.rows.items or (), each(part, apart), strict=True):
        vectors.update(zip((item[0], item[1], *item[2]), own, strict=True))

    def near(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        found: np.ndarray = np.stack([vectors[q] for q in queries]) @ np.stack([vectors[t] for t in texts]).T
        return found

    return _ranked(part.rows, near)


def _ranked(rows: Rows, near: Callable[[Sequence[str], Sequence[str]], np.ndarray]) -> list[Ranked]:
    """What the anchor of every row finds, by `near(queries, texts)` -> (queries, N). The anchor itself is not
    among what it searches."""
    from penjing.retrieval import ranks_of

    belongs: dict[str, dict[str, float]] = {}
    texts: dict[str, int] = {}
    for (a, b, rest), grade in zip(rows.items or (), rows.labels, strict=True):
        own = belongs.setdefault(a, {})
        if b != a:
            own[b] = max(own.get(b, 0.0), float(grade[0]) if grade else 1.0)
        for text in (b, *rest):
            texts.setdefault(text, len(texts))
    queries, places = list(belongs), list(texts)
    found: dict[str, Ranked] = {}
    for begin in range(0, len(queries), QUERIES):
        some = queries[begin : begin + QUERIES]
        for query, similar in zip(some, near(some, places), strict=True):
            similar = np.array(similar, np.float32)
            if query in texts:
                similar[texts[query]] = -np.inf
            right, grades = tuple(belongs[query]), np.array([*belongs[query].values()], np.float64)
            ranks = ranks_of(similar, np.array([texts[b] for b in right], np.int64))
            best = int(similar.argmax())
            found[query] = Ranked(query, right, ranks, grades, places[best], float(similar[best]))
    return [found[item[0]] for item in rows.items or ()]


def _queries(found: Sequence[Ranked]) -> list[Ranked]:
    """Each query once, of those to which anything belongs."""
    return [one for one in {one.query: one for one in found}.values() if len(one.ranks)]


def _bm25(rows: Rows) -> list[Ranked]:
    from penjing.baselines.search import bm25

    kept: list[Callable[[Sequence[str]], np.ndarray]] = []

    def near(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        if not kept:
            kept.append(bm25(texts))
        return kept[0](queries)

    return _ranked(rows, near)


def _score(
    found: Sequence[Ranked], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
) -> Scores:
    from penjing.retrieval import rankings

    queries = _queries(found)
    return rankings([one.ranks for one in queries], seed, [one.grades for one in queries])


def _difference(
    ours: Sequence[Ranked],
    theirs: Sequence[Ranked],
    targets: np.ndarray,
    chosen: dict[str, Any],
    their_chosen: dict[str, Any],
    seed: int,
) -> tuple[float, tuple[float, float]]:
    from penjing.retrieval import paired_difference

    first, second = _queries(ours), _queries(theirs)
    ranks = [one.ranks for one in first], [one.ranks for one in second]
    return paired_difference(*ranks, "ndcg_10", seed, [one.grades for one in first])


def _answers(
    found: np.ndarray | Sequence[Ranked], names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """Vectors of texts; of queries, the text that came first."""
    if not isinstance(found, np.ndarray):
        return [{"text": one.first, "score": one.nearness} for one in found]
    return [{"embedding": [float(x) for x in row]} for row in found]


def _say(answer: dict[str, Any]) -> str:
    if "text" in answer:
        return f"{' '.join(answer['text'].split())}\t{answer['score']:.3f}"
    return " ".join(f"{x:.4f}" for x in answer["embedding"][:4]) + " …"


def _mistakes(
    found: Sequence[Ranked], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """Queries whose first text is wrong, with the rank of the best right one."""
    place: dict[str, int] = {}
    for i, item in enumerate(rows.items or ()):
        place.setdefault(item[0], i)
    return [
        {
            "where": rows.where(place[one.query]),
            "text": one.query[:600],
            "given": f"{one.right[int(one.ranks.argmin())][:300]} (rank {int(one.ranks.min()):,})",
            "predicted": one.first[:300],
            "confidence": min(max(one.nearness, 0.0), 1.0),
        }
        for one in _queries(found)
        if one.ranks.min() > 1
    ]
