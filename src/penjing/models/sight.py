"""How a base sees: the images it takes, and the states it makes of them.

Legend: S images, C channels, H height, W width, P patches, D width of the base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.data.pixels import Fit, image_tokens, pixels_of
from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.models.modes import evaluating
from penjing.records import Part, Rows

FILE = "preprocessor_config.json"
HALF = (
    0.5,
    0.5,
    0.5,
)  # mean and standard deviation where a checkpoint says nothing, as transformers has them


@dataclass(frozen=True)
class Sight:
    """Of one base. `processor` is that of transformers, as its file holds it."""

    fit: Fit
    patch: tuple[int, int]
    n_tokens: int  # states an image: its patches, and tokens of the base's own before them
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    processor: Mapping[str, Any]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches from top to bottom and from left to right."""
        return self.fit.size[0] // self.patch[0], self.fit.size[1] // self.patch[1]

    @property
    def n_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def normal(self, images_SCHW: Tensor) -> Tensor:
        """Bytes as the base takes them, fp32; what is no longer bytes is so already."""
        if images_SCHW.is_floating_point():
            return images_SCHW
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(x, device=images_SCHW.device).view(shape) for x in (self.mean, self.std))
        return (images_SCHW.float() * self.scale - mean) / std

    def save(self, folder: Path) -> None:
        """Write transformers' file of the image processor."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, dict(self.processor))


def image_part(sight: Sight | None, rows: Rows, targets: np.ndarray | None = None) -> Part:
    """Pixels of the images at the size that a base takes, and their targets where they have any."""
    assert sight is not None, "the base reads images"
    own = np.zeros(len(rows), np.int64) if targets is None else targets
    return Part(rows, image_tokens(len(rows), sight.n_tokens), own, images=pixels_of(rows, sight.fit))


def sees(config: Any) -> bool:
    """Whether AutoModel makes a model of this config that takes pixels."""
    from transformers import MODEL_MAPPING

    kind = MODEL_MAPPING.get(type(config), None)
    return getattr(kind, "main_input_name", "") == "pixel_values"


def sight_of(trunk: Any, folder: Path | None) -> Sight:
    """How a trunk sees, by its config and the image processor in its folder; tried on two images.

    Raises:
        NotSupported: it is no ViT: it does not make states of patches of one size.
    """
    config, said = trunk.config, _processor(folder)
    size, patch = (_pair(getattr(config, f"{what}_size", None)) or (0, 0) for what in ("image", "patch"))
    channels = int(getattr(config, "num_channels", 3))
    n_patches = (size[0] // patch[0]) * (size[1] // patch[1]) if all(patch) else 0
    n_tokens = _states(trunk, size, channels) if n_patches and channels in (1, 3) else 0
    if n_tokens <= n_patches:
        raise NotSupported(
            "A base that makes states of patches of an image was wanted, with one before them that sums it "
            f"up (ViT, DeiT and their like); {type(trunk).__name__} does not. Take a ViT, or grow one: "
            "`base: vit-tiny`."
        )
    crop = _pair(said.get("crop_size")) if said.get("do_center_crop") else None
    edge = _edge(said.get("size"), max(size)) if crop else None
    fit = Fit(size, channels, edge, int(said.get("resample", 2)))
    shown = bool(said.get("do_normalize", True))
    mean = said.get("image_mean") or HALF[:channels]
    std = said.get("image_std") or HALF[:channels]
    if len(mean) != channels or len(std) != channels:
        raise NotSupported(
            f"{folder}/{FILE} gives means of {len(mean)} channels; the base takes {channels}. They are not "
            "of one checkpoint: fetch it again."
        )
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    processor = said or _written(size, mean, std, scale)
    shift, spread = (mean, std) if shown else ((0.0,) * channels, (1.0,) * channels)
    return Sight(fit, patch, n_tokens, tuple(shift), tuple(spread), scale, processor)


def _states(trunk: Any, size: tuple[int, int], channels: int) -> int:
    """States that the trunk makes of an image, of its own width; 0 where it makes something else."""
    device = next(trunk.parameters()).device
    with evaluating(trunk), torch.no_grad():
        out = trunk(pixel_values=torch.zeros(2, channels, *size, device=device)).last_hidden_state
    known = out.ndim == 3 and out.shape[-1] == getattr(trunk.config, "hidden_size", 0)
    return int(out.shape[1]) if known else 0


def _processor(folder: Path | None) -> dict[str, Any]:
    """What the file of the image processor says; nothing where there is none.

    Raises:
        NotSupported: it cannot be read.
    """
    path = folder / FILE if folder else None
    if path is None or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise NotSupported(
            f"{path} was to say how images are prepared; it cannot be read ({error}). Fetch it again."
        ) from error


def _written(size: tuple[int, int], mean: Any, std: Any, scale: float) -> dict[str, Any]:
    """The file of a base that brings none."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size[0], "width": size[1]},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": scale,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def _pair(value: Any) -> tuple[int, int] | None:
    """Height and width of whatever way transformers writes a size in."""
    if isinstance(value, Mapping):
        value = (value.get("height"), value.get("width"))
    if isinstance(value, int):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(x, int) for x in value):
        return int(value[0]), int(value[1])
    return None


def _edge(size: Any, least: int) -> int:
    """Pixels of the shorter side before the middle is cut out."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or min(size.get("height") or least, size.get("width") or least)
    return max(int(size or least), least)
