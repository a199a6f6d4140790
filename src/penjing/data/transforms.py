"""Images changed at random as training reads them; each a function of the generator handed in.

Legend: S images, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

SMALL = 64  # pixels: images up to here are shifted, larger ones zoomed into
LEAST_SHARE = 0.2  # of an image's area that a resized crop shows, as in MAE's pretraining (He et al. 2021)
RATIOS = (3 / 4, 4 / 3)  # of its width to its height


def changed(
    images_SCHW: np.ndarray, generator: np.random.Generator, *, crop: str | None, flip: bool
) -> np.ndarray:
    """Images as they are read this once: `shift`ed by up to an eighth of their size, `zoom`ed into, or by
    their size the one or the other (`auto`), and with `flip` mirrored.
    """
    side = min(images_SCHW.shape[2:])
    if crop == "shift" or (crop == "auto" and side <= SMALL):
        images_SCHW = shifted(images_SCHW, generator, by=max(1, side // 8))
    elif crop is not None:
        images_SCHW = zoomed(images_SCHW, generator)
    return np.ascontiguousarray(flipped(images_SCHW, generator) if flip else images_SCHW)


def flipped(images_SCHW: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """About every second image mirrored, left to right."""
    mirrored = generator.random(len(images_SCHW)) < 0.5
    return np.where(mirrored[:, None, None, None], images_SCHW[..., ::-1], images_SCHW)


def shifted(images_SCHW: np.ndarray, generator: np.random.Generator, by: int) -> np.ndarray:
    """A window of the same size from each image with `by` black pixels around it (He et al. 2015, CIFAR)."""
    n, channels, height, width = images_SCHW.shape
    wide = np.pad(images_SCHW, ((0, 0), (0, 0), (by, by), (by, by)))
    top, left = generator.integers(0, 2 * by + 1, (2, n))
    rows = (top[:, None] + np.arange(height))[:, None, :, None]
    columns = (left[:, None] + np.arange(width))[:, None, None, :]
    found: np.ndarray = wide[
        np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None], rows, columns
    ]
    return found


def zoomed(images_SCHW: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random part of each image, brought to its full size (random resized crop, Szegedy et al. 2014)."""
    n = len(images_SCHW)
    area = generator.uniform(LEAST_SHARE, 1, n)
    ratio = np.exp(generator.uniform(np.log(RATIOS[0]), np.log(RATIOS[1]), n))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    x, y = (generator.uniform(-1, 1, (2, n)) * (1 - np.stack([width, height]))).astype(np.float32)
    maps = np.zeros((n, 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 1, 1], maps[:, 0, 2], maps[:, 1, 2] = width, height, x, y
    images = torch.from_numpy(np.ascontiguousarray(images_SCHW)).float()
    grid = F.affine_grid(torch.from_numpy(maps), list(images.shape), align_corners=False)
    found = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.round().clamp(0, 255).byte().numpy()
