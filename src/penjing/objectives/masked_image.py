"""Masked images: most patches are hidden, the base learns to say their pixels.

`simmim`: Xie et al. 2021 (arXiv 2111.09886); `mae`: He et al. 2021 (arXiv 2111.06377).

Legend: S images, P patches, V visible ones, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from penjing.data.images import given_images, held_out, read_images
from penjing.data.transforms import changed
from penjing.errors import SpecError
from penjing.models.load import Base
from penjing.models.painting import (
    Painter,
    PatchHead,
    absolute,
    embeddings_of,
    hiding,
    patches_of,
    showing,
    squared,
    standardised,
)
from penjing.models.sight import Sight, image_part
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Each, Task

# What `train` says where the spec says nothing.
TRAIN = {
    "batch": 128,
    "schedule": "cosine",
    "betas": [0.9, 0.95],
    "lr": 1e-3,
    "warmup": 0.1,
    "weight_decay": 0.05,
}
HIDDEN = {"simmim": 0.6, "mae": 0.75}  # share of the patches
UNIT, OF = 32, 224  # pixels of what SimMIM hides as one, of an image of so many
STILL = 20_011  # seed of what validation hides, the same at every step


def masked_image(
    *,
    how: Literal["simmim", "mae"] = "simmim",
    share: float | None = None,
    decoder_width: int = 128,
    decoder_layers: int = 2,
    crop: Literal["auto", "shift", "zoom"] | None = "auto",
    flip: bool = True,
) -> Task:
    """Hide most of each image and learn to paint it.

    how: `simmim` puts one learned token in place of hidden patches and says their pixels by a linear layer
    (L1); `mae` runs the base on visible patches alone and has a small decoder of `decoder_width` and
    `decoder_layers` say the hidden ones, each patch scaled to mean 0 and variance 1 (squared error). share:
    of the patches that are hidden; 0.6 and 0.75 when not given. crop, flip: as in `see`.
    """
    if share is not None and not 0 < share < 1:
        raise SpecError(
            f"`masked_image.share` must be above 0 and below 1; it is {share}. {HIDDEN[how]} is usual."
        )
    if decoder_width < 16 or decoder_width % 16 or decoder_layers < 1:
        raise SpecError(
            "`masked_image.decoder_width` must be a multiple of 16 and `decoder_layers` at least 1; they "
            f"are {decoder_width} and {decoder_layers}."
        )
    hidden_share = HIDDEN[how] if share is None else share

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        sight = base.way.sight
        if sight is None:
            return task  # the job refuses a base of texts
        embeddings_of(base.trunk, "patch_embeddings")
        numbers = sight.patch[0] * sight.patch[1] * sight.fit.channels
        n_hidden = _n_hidden(sight, hidden_share) if how == "mae" else 0
        judge = _mae(sight, sight.n_patches - n_hidden) if how == "mae" else _simmim(sight)

        def head(width: int, *rest: Any) -> nn.Module:
            if how == "simmim":
                return PatchHead(width, numbers)
            return Painter(
                width, numbers, sight, inner=decoder_width, layers=decoder_layers, heads=decoder_width // 16
            )

        def masks(n: int, seed: int) -> np.ndarray:
            generator = np.random.default_rng([seed, 1])
            return orders(n, sight, generator) if how == "mae" else units(n, sight, hidden_share, generator)

        def vary(part: Part, rows: np.ndarray, seed: int) -> Part:
            assert part.images is not None
            images = changed(part.images[rows], np.random.default_rng(seed), crop=crop, flip=flip)
            return replace(part.take(rows), images=images, marks=masks(len(rows), seed))

        def loss(model: nn.Module, batch: Batch) -> Loss:
            return Loss(judge(model, batch).sum() / batch.n_targets)

        def infer(model: nn.Module, each: Each, part: Part) -> np.ndarray:
            still = replace(part, marks=masks(len(part), STILL))
            return np.array(each(still, lambda batch: judge(model, batch).float().cpu().tolist()))

        return replace(task, head=head, loss=loss, vary=vary, infer=infer)

    task = Task(
        name="masked_image",
        head=_unbound,
        loss=_unbound,
        score=lambda found, *rest: Scores({"loss": float(np.mean(found))}),
        best="loss",
        lower=True,
        untuned="own",
        rows=_read,
        ask=given_images,
        draw=held_out,
        part=lambda base, rows, names, max_length, labelled=True: image_part(base.way.sight, rows),
        bind=bind,
        sees=True,
    )
    return task


def _unbound(*given: Any) -> Any:
    raise AssertionError("what paints images comes with its base")


def _read(source: Any, *, labelled: bool = True, label: str | None = None, **reading: Any) -> Rows:
    """Images as `read_images` finds them; classes are not looked at."""
    if label is not None:
        raise SpecError(
            f"`data.label` is {label}; `task: masked_image` learns from images alone and would ignore it. "
            "Leave it out."
        )
    return read_images(source, labelled=False, **reading)


def _n_hidden(sight: Sight, share: float) -> int:
    """Patches that MAE hides: of P patches exactly round((1 - share) P) stay visible.

    Raises:
        SpecError: none would be hidden, or none seen.
    """
    visible = round((1 - share) * sight.n_patches)
    if not 0 < visible < sight.n_patches:
        raise SpecError(
            f"`masked_image.share` is {share:g}; of {sight.n_patches} patches an image {visible} would stay "
            "visible. Take another share, or smaller patches."
        )
    return sight.n_patches - visible


def orders(n: int, sight: Sight, generator: np.random.Generator) -> np.ndarray:
    """(n, P) the patches of each image shuffled; the first ones stay visible."""
    return generator.random((n, sight.n_patches)).argsort(1)


def units(n: int, sight: Sight, share: float, generator: np.random.Generator) -> np.ndarray:
    """(n, P) 1 at hidden patches. What is hidden as one is a seventh of an image, in whole patches: 32 pixels
    of 224 (SimMIM's mask patches); of U such units ceil(share U) are hidden.
    """
    tall, wide = (
        max(1, round(UNIT * side / OF / patch))
        for side, patch in zip(sight.fit.size, sight.patch, strict=True)
    )
    rows, columns = -(-sight.grid[0] // tall), -(-sight.grid[1] // wide)
    chosen = np.zeros((n, rows * columns), np.int64)
    count = min(rows * columns, int(np.ceil(share * rows * columns)))
    np.put_along_axis(chosen, generator.random(chosen.shape).argsort(1)[:, :count], 1, axis=1)
    spread = chosen.reshape(n, rows, columns).repeat(tall, 1).repeat(wide, 2)
    return np.ascontiguousarray(spread[:, : sight.grid[0], : sight.grid[1]].reshape(n, -1))


Judge = Callable[[nn.Module, Batch], Tensor]


def _simmim(sight: Sight) -> Judge:
    before = sight.n_tokens - sight.n_patches

    def judge(model: nn.Module, batch: Batch) -> Tensor:
        """(S,) mean absolute difference over the hidden pixels of each image."""
        inner: Any = model
        assert batch.images is not None
        assert batch.marks is not None
        hidden = batch.marks.bool()
        with hiding(inner.trunk, inner.head.token, hidden):
            states = inner.states(batch)
        said = inner.head(states.view(len(hidden), sight.n_tokens, -1)[:, before:][hidden])
        each = absolute(said, patches_of(sight.normal(batch.images), sight)[hidden])
        owner = hidden.nonzero()[:, 0]
        return each.new_zeros(len(hidden)).index_add(0, owner, each) / hidden.sum(1)

    return judge


def _mae(sight: Sight, n_visible: int) -> Judge:
    before = sight.n_tokens - sight.n_patches

    def judge(model: nn.Module, batch: Batch) -> Tensor:
        """(S,) mean squared difference over the hidden patches of each image."""
        inner: Any = model
        assert batch.images is not None
        assert batch.marks is not None
        shuffled = batch.marks
        with showing(inner.trunk, shuffled[:, :n_visible], before):
            states = inner.states(batch)
        restore = shuffled.argsort(1)
        said = inner.head(states.view(len(shuffled), before + n_visible, -1), restore)
        each = squared(said, standardised(patches_of(sight.normal(batch.images), sight)))
        hidden = (restore >= n_visible).float()
        return (each * hidden).sum(1) / hidden.sum(1)

    return judge
