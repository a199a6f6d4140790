"""The cheap baseline of images: logistic regression on a thumbnail's pixels and a histogram of its
colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.baseline import unwarned
from penjing.data.pixels import Fit, pixels_of
from penjing.records import Rows

THUMBNAIL = Fit((16, 16), resample=4)  # 4: the mean over what each pixel covers
SHADES = 4  # of red, green and blue in the histogram
MOST = 20_000  # images that are learned from; more hardly move a linear model of 256 numbers


@dataclass(frozen=True)
class FittedImages:
    """Rows of images -> (n, C) float64 probabilities."""

    scaler: Any
    model: Any
    n_classes: int
    notes: tuple[str, ...]

    def __call__(self, rows: Rows) -> np.ndarray:
        found = np.zeros((len(rows), self.n_classes))
        found[:, self.model.classes_] = self.model.predict_proba(self.scaler.transform(features(rows)))
        return found


def features(rows: Rows) -> np.ndarray:
    """(n, 256) fp32: 8 x 8 pixels of three channels, and shares of 4 x 4 x 4 colours, in 0..1."""
    pixels = np.asarray(pixels_of(rows, THUMBNAIL))
    n = len(pixels)
    small = pixels.reshape(n, 3, 8, 2, 8, 2).mean((3, 5), dtype=np.float32).reshape(n, -1) / 255
    red, green, blue = (pixels // (256 // SHADES)).astype(np.int64).transpose(1, 0, 2, 3).reshape(3, n, -1)
    colour = (red * SHADES + green) * SHADES + blue + SHADES**3 * np.arange(n)[:, None]
    counts = np.bincount(colour.ravel(), minlength=n * SHADES**3).reshape(n, -1)
    return np.concatenate([small, counts.astype(np.float32) / colour.shape[1]], axis=1)


def fit_images(rows: Rows, targets: np.ndarray, n_classes: int, seed: int) -> FittedImages:
    """Fit on labelled images.

    Args:
        targets: (n,) class of each image.
        n_classes: classes in all; those that no image has get probability 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    notes: tuple[str, ...] = ()
    if len(rows) > MOST:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST])
        notes = (f"the cheap baseline learned from {MOST:,} of {len(rows):,} images",)
        rows, targets = rows.take(chosen), targets[chosen]
    found = features(rows)
    scaler = StandardScaler().fit(found)
    with unwarned():  # few images a class are usual
        model = LogisticRegression(C=0.01, max_iter=500).fit(scaler.transform(found), targets)
    return FittedImages(scaler, model, n_classes, notes)
