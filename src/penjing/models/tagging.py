"""What a tagger's outputs stand for: a tag a site (BIO, BIOES, with or without a CRF), or where spans end.

Legend: N sites of all chains end to end, S chains, L longest, C outputs a site, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.data.align import sites_of
from penjing.data.entities import Tagged
from penjing.data.schemes import rules, spans_at, tag_names, tagged
from penjing.entities.scores import Truths
from penjing.models import crf

AT_ONCE = 512  # chains decoded together, of like length

Spans = list[tuple[int, int, int]]  # (first site, the one after the last, label)
Sure = list[tuple[int, int, int, float]]  # the same, and how sure: 0..1


@dataclass(frozen=True)
class Tagging:
    """One way to say spans by numbers a site.

    n_outputs: C. encode(spans, n sites) -> (n,) targets. loss(logits (N, C), targets (N,), chain lengths,
    transitions) -> the sum over sites, with its graph. decode(logits of each chain, transitions) -> spans.
    say(target, labels) -> it in words. outlets(labels) -> the names of the C outputs.
    """

    n_outputs: int
    encode: Callable[[Spans, int], np.ndarray]
    loss: Callable[[Tensor, Tensor, list[int], Tensor | None], Tensor]
    decode: Callable[[Sequence[Tensor], Tensor | None], list[Sure]]
    say: Callable[[int, Sequence[str]], str]
    outlets: Callable[[Sequence[str]], list[str]]


def by_tags(n_labels: int, scheme: str) -> Tagging:
    """A tag a site. Decoding takes the best path that keeps the scheme's rules, so that no answer contradicts
    itself; how sure an entity is, is the smallest probability among its tags (a CRF's marginal ones)."""
    n_tags = len(tag_names([str(i) for i in range(n_labels)], scheme))
    begin_C, follow_CC, end_C = (torch.from_numpy(rule) for rule in rules(n_labels, scheme))

    def loss(logits_NC: Tensor, targets_N: Tensor, counts: list[int], moves_CC: Tensor | None) -> Tensor:
        if moves_CC is None:
            return F.cross_entropy(logits_NC, targets_N, reduction="sum")
        if not len(targets_N):
            return logits_NC.sum()
        emissions_SLC, lengths = crf.chains(logits_NC, counts)
        tags_SL, _ = crf.chains(targets_N, counts)
        return crf.negative_log_likelihood(emissions_SLC, tags_SL, lengths, moves_CC).sum()

    def decode(logits: Sequence[Tensor], moves_CC: Tensor | None) -> list[Sure]:
        found: list[Sure] = [[] for _ in logits]
        order = sorted((i for i, one in enumerate(logits) if len(one)), key=lambda i: len(logits[i]))
        for begin in range(0, len(order), AT_ONCE):
            rows = order[begin : begin + AT_ONCE]
            counts = [len(logits[i]) for i in rows]
            emissions_SLC, lengths = crf.chains(torch.cat([logits[i] for i in rows]), counts)
            p_SLC = emissions_SLC.softmax(-1) if moves_CC is None else None
            moves = emissions_SLC.new_zeros(n_tags, n_tags) if moves_CC is None else moves_CC
            scores = emissions_SLC.log_softmax(-1)  # a constant off all tags of a site changes no path
            paths = crf.best_paths(scores, lengths, moves, begin_C=begin_C, follow_CC=follow_CC, end_C=end_C)
            if p_SLC is None:
                p_SLC = crf.marginals(emissions_SLC, lengths, moves)
            own_SL = p_SLC.gather(2, paths[:, :, None]).squeeze(2).numpy()
            for k, row in enumerate(rows):
                spans = spans_at(paths[k, : len(logits[row])].tolist(), scheme)
                found[row] = [(a, b, label, float(own_SL[k, a:b].min())) for a, b, label in spans]
        return found

    def say(target: int, labels: Sequence[str]) -> str:
        return tag_names(labels, scheme)[target]

    def outlets(labels: Sequence[str]) -> list[str]:
        return tag_names(labels, scheme)

    return Tagging(n_tags, lambda spans, n: tagged(spans, n, scheme), loss, decode, say, outlets)


def by_ends(n_labels: int) -> Tagging:
    """Where a span of each label begins and where one ends, each by a softmax over labels and none.

    A beginning belongs with the nearest end of its label, before another beginning of it. Spans of unequal
    labels may overlap, as long as no two begin, or end, at one site. A target is
    begin * (K + 1) + end; how sure an entity is, is the product of both probabilities.
    """
    n = n_labels + 1

    def encode(spans: Spans, n_sites: int) -> np.ndarray:
        begins, ends = np.zeros(n_sites, dtype=np.int64), np.zeros(n_sites, dtype=np.int64)
        for first, end, label in spans:
            begins[first], ends[end - 1] = label + 1, label + 1
        return begins * n + ends

    def loss(logits_NC: Tensor, targets_N: Tensor, counts: list[int], moves_CC: Tensor | None) -> Tensor:
        begins, ends = logits_NC.split(n, dim=1)
        first = F.cross_entropy(begins, targets_N // n, reduction="sum")
        return first + F.cross_entropy(ends, targets_N % n, reduction="sum")

    def decode(logits: Sequence[Tensor], moves_CC: Tensor | None) -> list[Sure]:
        return [_joined(one, n) for one in logits]

    def say(target: int, labels: Sequence[str]) -> str:
        begin, end = divmod(target, n)
        parts = [f"begins {labels[begin - 1]}"] if begin else []
        return " and ".join([*parts, *([f"ends {labels[end - 1]}"] if end else [])]) or "none"

    def outlets(labels: Sequence[str]) -> list[str]:
        return [f"{side} {name}" for side in ("begins", "ends") for name in ("none", *labels)]

    return Tagging(2 * n, encode, loss, decode, say, outlets)


def _joined(logits_LC: Tensor, n: int) -> Sure:
    """The spans of one chain: each beginning with the nearest end of its label."""
    (p_begin, begins), (p_end, ends) = (part.softmax(1).max(1) for part in logits_LC.split(n, dim=1))
    begin, end = begins.tolist(), ends.tolist()
    found: Sure = []
    for first, label in enumerate(begin):
        for last in range(first, len(end)) if label else ():
            if last > first and begin[last] == label:
                break
            if end[last] == label:
                found.append((first, last + 1, label - 1, float(p_begin[first] * p_end[last])))
                break
    return found


def numbers_of(
    tagging: Tagging, items: Sequence[Tagged], targets: Truths, *, spread: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(sites of all rows,) what is to be said of each, and what cannot be said exactly, in words."""
    found = [np.zeros(0, dtype=np.int64)]
    inside: list[str] = []
    lost = 0
    for item, target in zip(items, targets, strict=True):
        spans: Spans = []
        taken: set[Any] = set()
        for start, end, label in sorted(target.entities):
            first, last = sites_of(item.sites, start, end)
            own = {("b", first), ("e", last)} if spread else {*range(first, last)}
            if first == last or own & taken:
                lost += 1
                continue
            taken |= own
            spans.append((first, last, label))
            whole = item.text[item.sites[first][0] : item.sites[last - 1][1]]
            # Of a given word the tokenizer may make nothing, so its entity may be shorter.
            if len(whole) > end - start or (len(whole) < end - start and not item.given):
                inside.append(f"`{item.text[start:end]}` in `{whole}`")
        found.append(tagging.encode(spans, len(item.sites)))
    notes = []
    if inside:
        notes.append(
            f"{len(inside):,} entities begin or end inside a word (such as {inside[0]}) and are learned as "
            "whole words; `units: pieces` cuts finer"
        )
    if lost:
        notes.append(f"{lost:,} entities have no token of their own and are not learned")
    return np.concatenate(found), tuple(notes)


def placed(
    item: Tagged, spans: Sequence[tuple[int, int, int, float]]
) -> tuple[tuple[int, int, int, float], ...]:
    """Spans of sites as characters; of tokens that came with the row, whole ones."""
    found: dict[tuple[int, int, int], float] = {}
    for first, last, label, p in spans:
        start, end = item.sites[first][0], item.sites[last - 1][1]
        if item.given:
            low, high = sites_of(item.words, start, end)
            start, end = item.words[low][0], item.words[high - 1][1]
        found[start, end, label] = max(p, found.get((start, end, label), 0.0))
    return tuple((*place, p) for place, p in found.items())
