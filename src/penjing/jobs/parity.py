"""Parity: is an artefact what its original was? Held-out rows and edge cases go through both, and what comes
out lies side by side: the head's outputs, the answers in words, the task's score, and each row alone against
in company.

Compression, export and a server that loads a file all ask here. `compare` never raises over a difference;
`refuse` does, and `Parity.keep` writes what was found as parity.json beside the artefact.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.bundle import Bundle
from penjing.data.batches import cut, lengths_of, packed
from penjing.device import capabilities
from penjing.errors import NotSupported
from penjing.files import sha256, write_json
from penjing.jobs.lineage import versions
from penjing.jobs.prepare import digest
from penjing.jobs.replay import chosen_of, edges_of, outputs_of, part_of
from penjing.models.word_head import words_of
from penjing.plural import counted
from penjing.records import Part, Rows

SPOKEN = 512  # tokens at once where each has scores of every word
SHOWN = 3  # rows that differ, in the certificate


@dataclass(frozen=True)
class Tolerance:
    """How far an artefact may stand from its original. None: told, but not judged.

    difference: of any output, as a share of the original's largest. cosine: least, between the outputs of a
    row (or its tokens). answers: least share of rows answered alike. lost: of the task's score, in its own
    unit. alone: least cosine between a row's outputs alone and in company, in the artefact.
    """

    difference: float | None = 1e-3
    cosine: float | None = 0.9999
    answers: float | None = 0.99
    lost: float | None = 0.005
    alone: float | None = 0.9998


@dataclass(frozen=True)
class Parity:
    """What a comparison found. `broken` says in words what lies outside the tolerance; empty where all is
    well."""

    facts: Mapping[str, Any]
    broken: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether all that is judged lies within the tolerance."""
        return not self.broken

    def keep(self, folder: Path, **more: Any) -> Path:
        """Write parity.json into the artefact's folder, with the hashes of its files as they now are."""
        files = {
            p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()
        }
        files.pop("parity.json", None)
        write_json(folder / "parity.json", {"held": self.held, **self.facts, **more, "files": files})
        return folder / "parity.json"


@dataclass
class _Gaps:
    """Differences between outputs, gathered a row at a time."""

    n: int = 0
    scale: float = 0.0
    cosine: float = 1.0
    places: int = 0  # of states that have scores of many words: how many
    alike: int = 0  # and of how many the best word is the same
    worst: tuple[float, int] = (-1.0, 0)
    lost: list[int] = field(default_factory=list)  # rows whose outputs have another shape
    wild: list[int] = field(default_factory=list)  # rows whose outputs are not finite

    def see(self, row: int, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """One row's outputs: the original's, and the artefact's."""
        self.n += 1
        if not all(bool(torch.isfinite(other).all()) for other in theirs):
            self.wild.append(row)
            return
        # a sequence of one token has outputs (1, C) or (C,), as its batch mates have more tokens or not
        pairs = [
            (one, x.view_as(one) if x.numel() == one.numel() else x)
            for one, x in zip(ours, theirs, strict=False)
        ]
        if len(ours) != len(theirs) or not all(one.shape == other.shape for one, other in pairs):
            self.lost.append(row)
            return
        for one, other in pairs:
            if one.numel():
                self._gap(row, one, other)

    def _gap(self, row: int, ours: Tensor, theirs: Tensor) -> None:
        gap = float((ours - theirs).abs().max())
        self.worst = max(self.worst, (gap, row))
        self.scale = max(self.scale, float(ours.abs().max()))
        if ours.numel() > 1:
            a, b = ours.double().flatten(), theirs.double().flatten()
            norms = float(a.norm() * b.norm())
            self.cosine = min(self.cosine, float(a @ b) / norms if norms else float(gap == 0.0))
        if ours.ndim > 1:
            self.places += len(ours)
            self.alike += int((ours.argmax(-1) == theirs.argmax(-1)).sum())

    @property
    def largest(self) -> float:
        """The largest difference."""
        return max(0.0, self.worst[0])

    @property
    def share(self) -> float:
        """The largest difference over the largest output."""
        return self.largest / self.scale if self.scale else self.largest


def compare(
    original: Bundle,
    artefact: Bundle,
    rows: Rows,
    *,
    tolerance: Tolerance | None = None,
    labelled: bool = True,
    judged: bool = True,
    edges: bool = True,
    tokens: int = 8192,
) -> Parity:
    """Replay rows and (with `edges`) edge cases through both. Where the tokenizers differ, each reads the
    rows with its own.

    `rows` beyond MOST are evenly chosen; without `labelled` there is no score. Without `judged` the artefact
    gives outputs only, no answers (a graph of next-word scores does not write).
    """
    allowed = tolerance or Tolerance()
    rows = chosen_of(rows)
    mine, theirs = (part_of(one, rows, labelled=labelled) for one in (original, artefact))
    odd, names = edges_of(original, artefact) if edges else (None, [])
    gaps = _Gaps()
    limit = tokens if words_of(getattr(original.model, "head", original.model)) is None else SPOKEN
    for piece in _pieces(mine, theirs, limit):
        _replay(original, artefact, mine, theirs, piece, gaps)
    edge = _Gaps()
    if odd is not None:
        one, other = odd
        _replay(original, artefact, one, other, np.arange(len(one)), edge)
    alone = invariance(artefact, theirs if odd is None else odd[1], tokens=limit)
    said = {}
    if judged and not original.task.feed:
        said = _answers(original, artefact, [(mine, theirs), *([odd] if odd else [])])
        if labelled:
            said["score"] = _score(original, artefact, mine, theirs)
    facts: dict[str, Any] = {
        "original": {"model": repr(original), "card_sha256": sha256(original.folder / "card.json")},
        "rows": {
            "held_out": len(rows),
            "sha256": digest(rows),
            "edges": [*names, "longest"] if odd else [],
        },
        "outputs": _told(gaps),
        "edges": _told(edge) if odd is not None else None,
        "alone_cosine": alone,
        **said,
        "tolerance": asdict(allowed),
        "versions": versions(),
        "machine": capabilities(),
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    return Parity(facts, tuple(_broken(allowed, gaps, edge, alone, said, rows)))


def refuse(parity: Parity, what: str) -> None:
    """Stop where the artefact is not what the original was.

    Raises:
        NotSupported: it lies outside its tolerance.
    """
    if parity.broken:
        raise NotSupported(
            f"{what} that answers as {parity.facts['original']['model']} does was wanted; it does not: "
            f"{'; '.join(parity.broken)}. It is not kept. Take another target or a gentler step, or say how "
            "far it may differ with `tolerance`."
        )


def invariance(bundle: Bundle, part: Part, *, tokens: int = 8192, most: int = 16) -> float:
    """Least cosine between a row's outputs alone and in company of others, longest and shortest among them;
    1.0 where outputs are single numbers. An answer must not depend on who shares its batch."""
    order = np.argsort(lengths_of(part), kind="stable")
    mixed = order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(np.int64)]
    gaps = _Gaps()
    with torch.inference_mode():
        for piece in cut(np.unique(mixed), lengths_of(part), tokens=tokens):
            company = outputs_of(bundle, packed(part, piece))
            for row, ours in zip(piece, company, strict=True):
                gaps.see(int(row), ours, outputs_of(bundle, packed(part, np.array([row])))[0])
    return 0.0 if gaps.lost or gaps.wild else gaps.cosine


def _pieces(mine: Part, theirs: Part, tokens: int) -> Iterator[np.ndarray]:
    if len(mine) != len(theirs):
        raise NotSupported(
            f"The artefact was to read {counted(len(mine), 'sequence')}; its tokenizer makes {len(theirs):,} "
            "of the same rows, so they cannot be compared. Keep the original's tokenizer."
        )
    yield from cut(np.arange(len(mine)), lengths_of(mine), tokens=tokens)


def _replay(a: Bundle, b: Bundle, mine: Part, theirs: Part, rows: np.ndarray, gaps: _Gaps) -> None:
    """These sequences through both, in one batch each."""
    with torch.inference_mode():
        ours, others = outputs_of(a, packed(mine, rows)), outputs_of(b, packed(theirs, rows))
    for row, one, other in zip(rows, ours, others, strict=True):
        gaps.see(int(row), one, other)


def _answers(a: Bundle, b: Bundle, parts: Sequence[tuple[Part, Part]]) -> dict[str, Any]:
    """How many rows are answered in the same words, and some that are not."""
    first: list[Any] = []
    second: list[Any] = []
    for mine, theirs in parts:
        first += map(_words, a.task.answers(a.infer(mine), a.labels, a.card["chosen"]))
        second += map(_words, b.task.answers(b.infer(theirs), b.labels, b.card["chosen"]))
    unlike = [i for i, (x, y) in enumerate(zip(first, second, strict=True)) if x != y]
    told = [{"row": i, "original": first[i], "artefact": second[i]} for i in unlike[:SHOWN]]
    return {"answers": {"n": len(first), "alike": 1 - len(unlike) / len(first), "unlike": told}}


def _score(a: Bundle, b: Bundle, mine: Part, theirs: Part) -> dict[str, Any]:
    """The score that picks the best, of both, and what is lost of it."""
    name = a.task.best
    before, after = (
        float(one.task.score(one.infer(part), part.targets, one.labels, one.card["chosen"], 0).values[name])
        for one, part in ((a, mine), (b, theirs))
    )
    lost = after - before if a.task.lower else before - after
    return {"name": name, "original": before, "artefact": after, "lost": lost}


def _words(answer: Any) -> Any:
    """An answer without its numbers, which the outputs speak of."""
    if isinstance(answer, Mapping):
        return {k: _words(v) for k, v in answer.items() if not isinstance(v, float) and k != "scores"}
    if isinstance(answer, list | tuple):
        return [_words(one) for one in answer if not isinstance(one, float)]
    return answer


def _told(gaps: _Gaps) -> dict[str, Any]:
    told: dict[str, Any] = {
        "n": gaps.n,
        "largest_difference": gaps.largest,
        "of_largest_output": gaps.share,
        "least_cosine": gaps.cosine,
    }
    if gaps.places:
        told |= {"places": gaps.places, "same_best": gaps.alike / gaps.places}
    return told


def _broken(
    allowed: Tolerance, gaps: _Gaps, edge: _Gaps, alone: float, said: Mapping[str, Any], rows: Rows
) -> Iterator[str]:
    """What lies outside the tolerance, in words."""
    yield from _apart(
        allowed, gaps, f"held-out rows (worst: {rows.where(min(gaps.worst[1], len(rows) - 1))})"
    )
    yield from _apart(allowed, edge, "edge cases")
    if allowed.alone is not None and not alone >= allowed.alone:
        yield (
            f"a row's outputs depend on who shares its batch (cosine {alone:.6f}, {allowed.alone:g} is "
            "wanted)"
        )
    answers, score = said.get("answers"), said.get("score")
    if answers and allowed.answers is not None and answers["alike"] < allowed.answers:
        share, wanted = f"{answers['alike']:.1%}", f"{allowed.answers:.1%}"
        yield f"{share} of {answers['n']:,} answers are the same, {wanted} is wanted"
    if score and allowed.lost is not None and score["lost"] > allowed.lost:
        yield f"{score['name']} goes from {score['original']:.4f} to {score['artefact']:.4f}"


def _apart(allowed: Tolerance, found: _Gaps, what: str) -> Iterator[str]:
    if found.wild:
        yield f"{counted(len(found.wild), 'output')} of {found.n:,} of {what} are not finite"
    if found.lost and not (allowed.difference is None and allowed.cosine is None):
        yield f"{counted(len(found.lost), 'output')} of {found.n:,} of {what} have another shape"
    if allowed.difference is not None and not found.share <= allowed.difference:
        share = f"{found.share:.2g} of the largest"
        yield f"outputs of {what} differ by up to {share}, {allowed.difference:g} is allowed"
    if allowed.cosine is not None and not found.cosine >= allowed.cosine:
        yield f"the least cosine of outputs of {what} is {found.cosine:.6f}, {allowed.cosine:g} is wanted"
