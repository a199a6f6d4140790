"""Virtual tokens before every sequence (Lester et al. 2021, arXiv 2104.08691), in packed and padded bases.

They stand at the first positions, as in peft. Their last states are dropped: pooling sees real tokens only.

Legend: S sequences, T tokens, p virtual tokens a sequence, E width of the word table, D width of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import SpecError
from penjing.models.layout import Regroup, Return
from penjing.models.load import tokenizer_at, words_beside
from penjing.models.packing import Way, forward


class Prompt(nn.Module):
    """p vectors that train, perhaps through an encoder (P-tuning), of which only what it gives is saved."""

    runs_fp32 = True  # a few vectors: cast when they join the words

    def __init__(self, start: Tensor, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(start)  # (p, E)
        self.encoder = encoder

    @property
    def kind(self) -> str:
        """Its name in peft."""
        return "PROMPT_TUNING" if self.encoder is None else "P_TUNING"

    def vectors(self) -> Tensor:
        """(p, E), fp32."""
        return self.weight if self.encoder is None else self.encoder(self.weight)

    def run(
        self, trunk: Any, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
    ) -> Tensor:
        """Last states of the real tokens, (T, D); called by `packing.run`."""
        words = trunk.get_input_embeddings()(ids)  # (T, E)
        vectors = self.vectors().to(words.dtype)
        n_virtual, sizes = len(vectors), tuple(int(n) for n in lengths)
        order, place = (x.to(ids.device) for x in _order(sizes, n_virtual))
        repeated = vectors.expand(len(sizes), *vectors.shape).reshape(-1, vectors.shape[1])
        mixed = Regroup.apply(torch.cat([repeated, words]), order, place)
        if segments is not None:
            segments = torch.cat([segments.new_zeros(len(repeated)), segments])[order]
        states = forward(trunk, way, mixed, [n + n_virtual for n in sizes], segments)
        return Return.apply(states, place[len(repeated) :])  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _order(lengths: tuple[int, ...], n_virtual: int) -> tuple[Tensor, Tensor]:
    """From rows (all virtual tokens, then all words) to sequences with virtual tokens first, and the inverse.

    The first says which row stands at each place, the second at which place each row stands.
    """
    size = torch.tensor(lengths)
    starts = (size + n_virtual).cumsum(0) - size - n_virtual
    virtual = (starts[:, None] + torch.arange(n_virtual)).flatten()
    owner = torch.arange(len(size)).repeat_interleave(size)
    real = torch.arange(len(owner)) + n_virtual * (owner + 1)
    place = torch.cat([virtual, real])
    return place.argsort(), place


def beginning(trunk: Any, n: int, how: str, text: str | None = None) -> Tensor:
    """(n, E) vectors to begin with: those of random words (`vocabulary`) or of a `text`, or `random` ones."""
    table: Tensor = trunk.get_input_embeddings().weight.detach()
    if how == "random":
        return torch.randn(n, table.shape[1], device=table.device) * table.std()
    return table[word_ids(trunk, n, text).to(table.device)].clone()


def word_ids(trunk: Any, n: int, text: str | None = None) -> Tensor:
    """(n,) ids of a text, repeated or cut to fit, by the tokenizer beside the base; else of random words."""
    if text is None:
        return torch.randint(trunk.get_input_embeddings().num_embeddings, (n,))
    folder = words_beside(Path(trunk.name_or_path))
    ids: list[int] = tokenizer_at(folder)(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise SpecError(
            f"The method's `text` is {text!r}, and the tokenizer in {folder} makes no token of "
            f"it. Give words, such as `classify this support ticket`."
        )
    return torch.tensor((ids * n)[:n])


def recurrent(width: int, hidden: int, layers: int) -> nn.Module:
    """P-tuning's encoder (Liu et al. 2021, arXiv 2103.10385): a bidirectional LSTM and two linear layers."""
    return nn.Sequential(
        _States(nn.LSTM(width, hidden, num_layers=layers, bidirectional=True)),
        nn.Linear(2 * hidden, 2 * hidden),
        nn.ReLU(),
        nn.Linear(2 * hidden, width),
    )


def perceptron(width: int, hidden: int) -> nn.Module:
    """The quicker encoder of the same: three linear layers, a vector at a time."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width)
    )


class _States(nn.Module):
    """The states of an LSTM, without its cells."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]
