"""Which pieces of a corpus make which step where sources are mixed by other shares than their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from penjing.errors import DataError, SpecError, nearest
from penjing.records import Part


def shares_of(weights: Mapping[str, float], sources: Sequence[str]) -> np.ndarray:
    """The weights in the sources' order, their sum 1.

    Raises:
        SpecError: a weight of no source, none for a source, or one that is not positive.
    """
    extra = next((name for name in weights if name not in sources), None)
    if extra is not None:
        raise SpecError(
            f"`data.weights` names the source `{extra}`; those of the corpus are "
            f"{', '.join(sources[:20])}.{nearest(extra, sources)} Mend or drop it."
        )
    lacking = next((name for name in sources if not weights.get(name, 0.0) > 0), None)
    if lacking is not None:
        raise SpecError(
            f"`data.weights` must give every source a share above 0; `{lacking}` has "
            f"{weights.get(lacking, 'none')}. Give it one, or leave the source out of `data.train`."
        )
    found = np.array([weights[name] for name in sources], np.float64)
    return np.asarray(found / found.sum())


def refuse_empty(part: Part, sources: Sequence[str]) -> None:
    """Every source needs a piece to give its share of: pieces are of the source that their first token is of,
    so one of few words may have none.

    Raises:
        DataError: one has none.
    """
    there = set(part.targets[:, 0].tolist())
    lacking = next((name for i, name in enumerate(sources) if i not in there), None)
    if lacking is not None:
        raise DataError(
            f"`data.weights` gives every source a share of what is learned; `{lacking}` is too short to have "
            f"one of the {len(part):,} pieces. Give it more text, leave it out, or drop the weights."
        )


def mixed_order(shares: np.ndarray) -> Callable[[Part, int, int, int], list[np.ndarray]]:
    """A task's `order`: every step holds each source by its share, as nearly as whole pieces allow.

    A source is gone through in a random order, again and again, so none of its pieces is seen a second time
    before all were seen once.
    """

    def order(part: Part, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
        targets = part.targets
        n, n_steps = len(targets), -(-len(targets) // batch)
        ends = np.round(np.outer(np.arange(n_steps + 1) * batch, shares)).astype(np.int64)
        ends = np.minimum(ends, np.round(n * shares).astype(np.int64))
        dealt = []
        for place in range(len(shares)):
            own = np.flatnonzero(targets[:, 0] == place)
            n_epoch = int(ends[-1, place])
            dealt.append(_taken(own, epoch * n_epoch, n_epoch, [seed, place]))
        steps = [
            np.concatenate([taken[ends[i, k] : ends[i + 1, k]] for k, taken in enumerate(dealt)])
            for i in range(n_steps)
        ]
        return [step for step in steps if len(step)]

    return order


def _taken(own: np.ndarray, first: int, count: int, seed: list[int]) -> np.ndarray:
    """Places `first` to `first + count` of an endless row of permutations of `own`."""
    found: list[np.ndarray] = []
    while count:
        turn, at = divmod(first, len(own))
        piece = np.random.default_rng([*seed, turn]).permutation(own)[at : at + count]
        found.append(piece)
        first, count = first + len(piece), count - len(piece)
    return np.concatenate([*found, np.zeros(0, np.int64)])
