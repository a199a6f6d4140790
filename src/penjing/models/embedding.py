"""Train only the rows of the word table that the training text uses, with the result of training them all.

A row that never occurs gets no gradient, so AdamW's moments for it stay zero (Lion's, too, and the sign of
zero is zero) and its only change is weight decay, p <- p (1 - lr wd) at every step: one scalar for all such
rows. Gradient, clipping and update
then run over the few thousand rows in use (banking77: 2,500 of 30,522) in place of the whole table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RowsInUse(nn.Module):
    """A word table of which only some rows train. `weight` (R, D) holds those; `table` (V, D) all, as they
    began.
    """

    looks_up_rows = True

    def __init__(self, embedding: nn.Embedding, used: np.ndarray) -> None:
        super().__init__()
        rows = torch.as_tensor(np.unique(used), dtype=torch.int64, device=embedding.weight.device)
        self.weight = nn.Parameter(embedding.weight.detach()[rows].clone())
        self.padding_idx = embedding.padding_idx
        self.decay = 1.0  # what weight decay has left of the unused rows
        self._rows = rows
        self._table = embedding.weight.detach()
        self._row_of = torch.full((embedding.num_embeddings,), -1, dtype=torch.int64, device=rows.device)
        self._row_of[rows] = torch.arange(len(rows), device=rows.device)
        # kept from one training step to the next: fused optimizers do not tell that they wrote
        self._full: Tensor | None = None

    @property
    def num_embeddings(self) -> int:
        return int(self._row_of.shape[0])

    def forward(self, ids: Tensor) -> Tensor:
        """Ids of any shape -> (..., D). Rows that do not train may be looked up too, but not trained."""
        local = self._row_of[ids]
        if torch.is_grad_enabled() and bool((local >= 0).all()):
            pad = None
            if self.padding_idx is not None and int(self._row_of[self.padding_idx]) >= 0:
                pad = int(self._row_of[self.padding_idx])
            return F.embedding(local, self.weight, padding_idx=pad)
        assert not (torch.is_grad_enabled() and self.training), (
            "a training batch holds ids outside the rows in use"
        )
        return F.embedding(ids, self.full())

    def train(self, mode: bool = True) -> RowsInUse:
        """As `nn.Module.train`; the whole table kept for evaluation is dropped."""
        self._full = None
        return super().train(mode)

    def full(self) -> Tensor:
        """The whole table as dense training would have left it: (V, D), without graph."""
        if self._full is not None and not self.training:
            return self._full
        table = self._table * self.decay
        table[self._rows] = self.weight.detach()
        self._full = table
        return table


def train_rows_in_use(trunk: nn.Module, used: np.ndarray) -> RowsInUse | None:
    """Put a RowsInUse in place of the trunk's word table; None (and nothing changed) where that gains
    nothing.

    `trunk` is a transformers model; a table that is frozen, tied, or mostly in use stays as it is.
    """
    table = trunk.get_input_embeddings()  # type: ignore[operator]
    if type(table) is not nn.Embedding or not table.weight.requires_grad or table.max_norm is not None:
        return None
    if len(np.unique(used)) > 0.8 * table.num_embeddings:
        return None
    if sum(1 for _, p in trunk.named_parameters(remove_duplicate=False) if p is table.weight) > 1:
        return None
    pad = getattr(getattr(trunk, "config", None), "pad_token_id", None)
    rows = RowsInUse(table, np.append(used, max(0, pad or 0)))  # a padded base looks up its padding, too
    trunk.set_input_embeddings(rows)  # type: ignore[operator]
    return rows


def whole_state(trunk: nn.Module) -> dict[str, Tensor]:
    """`trunk.state_dict()` with every word table whole again."""
    state: dict[str, Tensor] = dict(trunk.state_dict())
    for name, table in tables_in_use(trunk).items():
        state[f"{name}.weight"] = table.full().clone()
    return state


def tables_in_use(model: nn.Module) -> dict[str, RowsInUse]:
    """The word tables below `model` of which only some rows train, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, RowsInUse)}
