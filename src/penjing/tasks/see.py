"""Image classification: one label an image, by a ViT and its like.

Legend: S images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from penjing.data.images import given_images, held_out, read_images
from penjing.data.transforms import changed
from penjing.models.load import Base
from penjing.models.sight import image_part
from penjing.records import Part, Rows
from penjing.task import Each, Task
from penjing.tasks.classify import check_settings, classify

# What `train` says where the spec says nothing.
TRAIN = {"batch": 64, "schedule": "cosine"}


def see(
    *,
    labels: list[str] | None = None,
    crop: Literal["auto", "shift", "zoom"] | None = "auto",
    flip: bool = True,
    pooling: Literal["auto", "cls", "mean"] = "auto",
    head_dropout: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: Literal["balanced"] | dict[str, float] | None = None,
) -> Task:
    """Give each image one label.

    labels: their names in order; those of the train rows, sorted, when not given. crop: how training images
    are cut anew each time: `shift`, an eighth of their size to any side; `zoom`, a part of at least a fifth
    of their area at full size; `auto` shifts images of up to 64 pixels and zooms into larger ones. flip:
    every second one is mirrored. pooling, head_dropout, label_smoothing, class_weights: as in `classify`.
    """
    check_settings("see", labels, head_dropout, label_smoothing)
    plain = classify(
        labels=labels,
        pooling=pooling,
        head_dropout=head_dropout,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
    )

    def part_of(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
        return image_part(base.way.sight, rows, plain.encode(rows, names) if labelled else None)

    def vary(part: Part, rows: np.ndarray, seed: int) -> Part:
        assert part.images is not None
        images = changed(part.images[rows], np.random.default_rng(seed), crop=crop, flip=flip)
        return replace(part.take(rows), images=images)

    return replace(
        plain,
        name="see",
        rows=read_images,
        ask=given_images,
        draw=held_out,
        part=part_of,
        vary=vary if crop or flip else None,
        infer=_infer,
        mistakes=_named(plain),
        baseline=_baseline,
        untuned=None,
        sees=True,
        teach=None,
    )


def _infer(model: nn.Module, each: Each, part: Part) -> np.ndarray:
    """(S, C) probabilities of images as they are, uncut."""
    found = each(part, lambda batch: model(batch).float().cpu())
    return torch.stack(found).softmax(-1).double().numpy() if found else np.zeros((0, 0))


def _named(plain: Task) -> Callable[..., list[dict[str, Any]]]:
    """Mistakes with the image's name for its text: people read no hashes."""

    def mistakes(found: np.ndarray, rows: Rows, *rest: Any) -> list[dict[str, Any]]:
        assert plain.mistakes is not None
        names = replace(rows, texts=[rows.where(i) for i in range(len(rows))])
        return plain.mistakes(found, names, *rest)

    return mistakes


def _baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], np.ndarray]:
    from penjing.baselines.images import fit_images

    return fit_images(rows, targets, len(names), seed)
