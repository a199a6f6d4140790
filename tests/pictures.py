"""Small images and a tiny ViT, for tests of all that sees."""

from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("blue", "green", "red")
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def pixels(n: int, *, size: int = 20, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """(n, size, size, 3) uint8, in turn mostly blue, green and red, with noise; and which."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 120, (n, size, size, 3))
    for i in range(n):
        images[i, :, :, 2 - i % 3] += 90
    return images.astype(np.uint8), [CLASSES[i % 3] for i in range(n)]


def painted(folder: Path, n: int = 24, **more: Any) -> Path:
    """A folder with a sub-folder a class of PNG files."""
    from PIL import Image

    for i, (image, label) in enumerate(zip(*pixels(n, **more), strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{i:03}.png")
    return folder


def tiny_vit(folder: Path, *, classifier: bool = False, **changes: Any) -> Path:
    """A random ViT of 2 layers and width 32 for 16 x 16 pixels in patches of 4, as a user would have it."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        config = transformers.ViTConfig(**{**SHAPE, "initializer_range": 0.15, **changes})
        model: Any = (
            transformers.ViTForImageClassification(config) if classifier else transformers.ViTModel(config)
        )
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 1:
                    weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder
