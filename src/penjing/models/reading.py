"""Readers: a model that has read some rows, and says the scores of the next word of each.

`Cached` runs transformers' forward with its key-value cache, for decoders and for encoder-decoders; `Again`
reads every row from its beginning at each step, which costs more and serves what has no cache (modules that
a method put around a base).

Legend: n rows, k copies of each, L longest, V words, D width.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from penjing.models import encdec, packing
from penjing.models.layers import bare
from penjing.models.model import Model
from penjing.records import Batch, Side


class Reader(Protocol):
    """Rows under way. `start` and `step` give (n, V) fp32 scores of what comes next."""

    def start(self) -> Tensor: ...
    def step(self, ids: Tensor) -> Tensor: ...  # (n,) what was said
    def repeat(self, k: int) -> None: ...  # each row k times, neighbours
    def keep(self, rows: Tensor, *, reorder: bool = False) -> None: ...  # `reorder`: among copies of a row
    def join(self, other: Any) -> bool: ...  # take in the rows of another that has started; False: it cannot


def reader_of(model: Model, rows: Sequence[Sequence[int]], *, cached: bool = True) -> Reader:
    """A reader of prompts, or of an encoder-decoder's sources."""
    asked = inspect.signature(type(bare(model.trunk)).forward).parameters
    keeps = "past_key_values" in asked or encdec.is_whole(model.trunk)  # Mamba's states are another matter
    if not cached or not keeps or getattr(model.trunk, "added", None) is not None:
        return Again(model, rows)
    return Both(model, rows) if encdec.is_whole(model.trunk) else Cached(model, rows)


@contextlib.contextmanager
def _running(model: Model) -> Iterator[Any]:
    """Inside, the trunk runs by transformers' own attention, which knows caches: the bare model."""
    trunk: Any = bare(model.trunk)
    with model.working():
        if model.way.packed:
            packing.native(trunk)
        try:
            yield trunk
        finally:
            if model.way.packed:
                trunk.set_attn_implementation(packing.NAME)


def _device(model: Model) -> torch.device:
    return next(model.trunk.parameters()).device


def _table(model: Model, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and where tokens stand, (n, L) each."""
    flat = torch.tensor([token for row in rows for token in row], device=_device(model))
    return encdec.padded(flat, [len(row) for row in rows], packing.pad_of(model.trunk), left=left)


class Cached:
    """Rows of a decoder, padded on the left, and their keys and values."""

    def __init__(self, model: Model, rows: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.ids, self.seen = _table(model, rows, left=True)
        self.cache: Any = None
        asked = inspect.signature(type(bare(model.trunk)).forward).parameters
        self._places = "position_ids" in asked

    def start(self) -> Tensor:
        return self._read(self.ids, (self.seen.long().cumsum(1) - 1).clamp(min=0))

    def step(self, ids: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(ids), 1)], 1)
        return self._read(ids[:, None], self.seen.long().sum(1, keepdim=True) - 1)

    def _read(self, ids: Tensor, places: Tensor) -> Tensor:
        more = {"position_ids": places} if self._places else {}
        with _running(self.model) as trunk:
            out = trunk(
                input_ids=ids,
                attention_mask=self.seen.long(),
                past_key_values=self.cache,
                use_cache=True,
                **more,
            )
        self.cache = out.past_key_values
        scores: Tensor = self.model.head(out.last_hidden_state[:, -1])
        return scores

    def repeat(self, k: int) -> None:
        self.cache.batch_repeat_interleave(k)
        self.seen = self.seen.repeat_interleave(k, 0)

    def keep(self, rows: Tensor, *, reorder: bool = False) -> None:
        self.cache.batch_select_indices(rows)
        self.seen = self.seen[rows]

    def join(self, other: Any) -> bool:
        layers = [*self.cache.layers, *other.cache.layers]
        if any(layer.is_sliding or not layer.is_initialized for layer in layers):
            return False  # a window's keys do not say how many came before
        self._narrow()
        other._narrow()
        width = max(self.seen.shape[1], other.seen.shape[1])
        for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            ours.keys = torch.cat([_on_the_left(x.keys, width, 2) for x in (ours, theirs)])
            ours.values = torch.cat([_on_the_left(x.values, width, 2) for x in (ours, theirs)])
        self.seen = torch.cat([_on_the_left(x.seen, width, 1) for x in (self, other)])
        return True

    def _narrow(self) -> None:
        """Drop the places on the left that are empty in every row."""
        empty = int(self.seen.any(0).long().argmax())
        if empty:
            self.seen = self.seen[:, empty:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, empty:], layer.values[:, :, empty:]


def _on_the_left(x: Tensor, width: int, dim: int) -> Tensor:
    """With empty places in front, up to a width."""
    shape = [*x.shape]
    shape[dim] = width - shape[dim]
    return torch.cat([x.new_zeros(shape), x], dim)


class Both:
    """Sources of an encoder-decoder, read once, and the decoder's keys and values."""

    def __init__(self, model: Model, rows: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.ids, self.seen = _table(model, rows, left=False)
        self.memory: Tensor | None = None
        self.cache: Any = None

    def start(self) -> Tensor:
        with _running(self.model) as trunk:
            memory: Tensor = trunk.encoder(
                input_ids=self.ids, attention_mask=self.seen.long()
            ).last_hidden_state
        self.memory = memory
        for token in encdec.begin_of(self.model):
            scores = self.step(self.ids.new_full((len(self.ids),), token))
        return scores

    def step(self, ids: Tensor) -> Tensor:
        with _running(self.model) as trunk:
            out = trunk.decoder(
                input_ids=ids[:, None],
                encoder_hidden_states=self.memory,
                encoder_attention_mask=self.seen.long(),
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache = out.past_key_values
        scores: Tensor = self.model.head(out.last_hidden_state[:, -1])
        return scores

    def repeat(self, k: int) -> None:
        assert self.memory is not None
        self.cache.batch_repeat_interleave(k)
        self.memory, self.seen = self.memory.repeat_interleave(k, 0), self.seen.repeat_interleave(k, 0)

    def keep(self, rows: Tensor, *, reorder: bool = False) -> None:
        assert self.memory is not None
        self.cache.self_attention_cache.batch_select_indices(rows)
        if not reorder:  # copies of a row share its source
            self.cache.cross_attention_cache.batch_select_indices(rows)
            self.memory, self.seen = self.memory[rows], self.seen[rows]

    def join(self, other: Any) -> bool:
        return False  # T5 counts places from the first, which is the same for all rows


class Again:
    """Rows that are read anew at each step, packed."""

    def __init__(self, model: Model, rows: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.rows = [list(row) for row in rows]
        self.said: list[list[int]] = [encdec.begin_of(model)[1:] for _ in rows]
        self.both = encdec.is_whole(model.trunk)

    def start(self) -> Tensor:
        answer = None
        rows = self.rows if self.both else [[*r, *s] for r, s in zip(self.rows, self.said, strict=True)]
        sizes = torch.tensor([len(row) for row in rows])
        if self.both:  # what a word is said from has its place, whatever the word
            said = [[*s, 0] for s in self.said]
            answer = Side(torch.tensor([i for s in said for i in s]), torch.tensor([len(s) for s in said]))
        flat = torch.tensor([i for row in rows for i in row])
        batch = Batch(flat, sizes, None, 1.0, tuple(range(len(rows))), answer=answer)
        states = self.model.states(batch.to(_device(self.model)))
        last = (sizes if answer is None else answer.lengths).cumsum(0) - 1
        scores: Tensor = self.model.head(states[last.to(states.device)])
        return scores

    def step(self, ids: Tensor) -> Tensor:
        for said, token in zip(self.said, ids.tolist(), strict=True):
            said.append(token)
        return self.start()

    def repeat(self, k: int) -> None:
        self.rows = [row for row in self.rows for _ in range(k)]
        self.said = [list(said) for said in self.said for _ in range(k)]

    def keep(self, rows: Tensor, *, reorder: bool = False) -> None:
        chosen = rows.tolist()
        self.rows, self.said = [self.rows[i] for i in chosen], [list(self.said[i]) for i in chosen]

    def join(self, other: Any) -> bool:
        self.rows += other.rows
        self.said += other.said
        return True
