"""Pixels said from states: patches hidden from a ViT, and the heads that paint them.

Legend: S images, C channels, H height, W width, P patches, V visible patches, T states an image, D width of
the base, E width of the decoder, X numbers of a patch (its height x width x channels).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import NotSupported
from penjing.models.layers import bare
from penjing.models.sight import Sight

EPS = 1e-6  # of MAE's norms, and of its patches' variance


def patches_of(images_SCHW: Tensor, sight: Sight) -> Tensor:
    """(S, P, X) pixels of each patch, row by row from the top left; pixels beyond the last whole patch are
    left out, as the base's own patches leave them out.
    """
    (rows, columns), (height, width) = sight.grid, sight.patch
    n, channels = images_SCHW.shape[:2]
    whole = images_SCHW[:, :, : rows * height, : columns * width]
    apart = whole.reshape(n, channels, rows, height, columns, width)
    return apart.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * columns, -1)


def standardised(patches_SPX: Tensor) -> Tensor:
    """Each patch with mean 0 and variance 1 (He et al. 2021, section 4.1, "normalized pixel values")."""
    mean = patches_SPX.mean(-1, keepdim=True)
    return (patches_SPX - mean) / (patches_SPX.var(-1, keepdim=True) + EPS) ** 0.5


class PatchHead(nn.Module):
    """A linear layer from the state of each hidden patch to its pixels, and the token that stands for it at
    the input (Xie et al. 2021, SimMIM, section 3).
    """

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(width))
        self.out = nn.Linear(width, numbers)

    def forward(self, states_MD: Tensor) -> Tensor:
        """(M, D) states of hidden patches -> (M, X)."""
        return self.out(states_MD.float())  # type: ignore[no-any-return]


class Painter(nn.Module):
    """MAE's decoder: visible states and mask tokens, each in its place, through a few narrow layers to the
    pixels of every patch (He et al. 2021, section 3).
    """

    def __init__(
        self, width: int, numbers: int, sight: Sight, *, inner: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.before = sight.n_tokens - sight.n_patches
        self.narrow = nn.Linear(width, inner)
        self.token = nn.Parameter(0.02 * torch.randn(inner))
        places = torch.from_numpy(places_of(sight.grid, inner))
        self.register_buffer("places", places, persistent=False)
        self.layers = nn.ModuleList(_layer(inner, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(inner, eps=EPS)
        self.out = nn.Linear(inner, numbers)

    def forward(self, states_SVD: Tensor, restore_SP: Tensor) -> Tensor:
        """(S, tokens before + V, D) states and the place of each patch among visible and hidden ones -> (S,
        P, X).
        """
        x = self.narrow(states_SVD.float())
        own, seen = x[:, : self.before], x[:, self.before :]
        n, n_patches = restore_SP.shape
        hidden = self.token.expand(n, n_patches - seen.shape[1], -1)
        index = restore_SP[..., None].expand(-1, -1, x.shape[-1])
        places: Any = self.places
        x = torch.cat([own, torch.cat([seen, hidden], 1).gather(1, index) + places], 1)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.norm(x[:, self.before :]))  # type: ignore[no-any-return]


def _layer(width: int, heads: int) -> nn.Module:
    """A layer as MAE's: norms before, GELU, four times as wide inside, no dropout."""
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", EPS, batch_first=True, norm_first=True
    )


def places_of(grid: tuple[int, int], width: int) -> np.ndarray:
    """(P, width) sines and cosines of each patch's column, then of its row (He et al. 2021, appendix A.1)."""
    rates = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    parts = [f(place[:, None] * rates) for place in (columns, rows) for f in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def embeddings_of(trunk: Any, name: str) -> nn.Module:
    """The trunk's module that makes the first layer's input (`embeddings`), or the patches' part of it.

    Raises:
        NotSupported: it has none by that name.
    """
    found = getattr(bare(trunk), "embeddings", None)
    found = found if name == "embeddings" else getattr(found, name, None)
    if not isinstance(found, nn.Module):
        raise NotSupported(
            f"Patches were to be hidden from the base; {type(bare(trunk)).__name__} has no module `{name}` "
            "that makes them. Take a ViT or DeiT."
        )
    return found


@contextlib.contextmanager
def changing(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, what the module gives is changed before it goes on."""
    handle = module.register_forward_hook(lambda own, args, out: change(out))
    try:
        yield
    finally:
        handle.remove()


def hiding(trunk: nn.Module, token_D: Tensor, hidden_SP: Tensor) -> contextlib.AbstractContextManager[None]:
    """Inside, hidden patches (True) enter the base as one learned token, in their places."""

    def change(patches_SPD: Tensor) -> Tensor:
        return torch.where(hidden_SP[..., None], token_D.to(patches_SPD.dtype), patches_SPD)

    return changing(embeddings_of(trunk, "patch_embeddings"), change)


def showing(trunk: nn.Module, visible_SV: Tensor, before: int) -> contextlib.AbstractContextManager[None]:
    """Inside, the base's layers see only these patches, and its own `before` tokens."""

    def change(states_STD: Tensor) -> Tensor:
        index = visible_SV[..., None].expand(-1, -1, states_STD.shape[-1])
        return torch.cat([states_STD[:, :before], states_STD[:, before:].gather(1, index)], 1)

    return changing(embeddings_of(trunk, "embeddings"), change)


def absolute(found_MX: Tensor, wanted_MX: Tensor) -> Tensor:
    """(M,) mean absolute difference of each patch."""
    return F.l1_loss(found_MX, wanted_MX, reduction="none").mean(-1)


def squared(found_SPX: Tensor, wanted_SPX: Tensor) -> Tensor:
    """(S, P) mean squared difference of each patch."""
    return F.mse_loss(found_SPX, wanted_SPX, reduction="none").mean(-1)
