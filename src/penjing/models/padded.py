"""A model as other runtimes run it, padded tables in and tables out; and such a runtime in a model's place.

`padded(held)` is what exporters trace: one module of plain torch, with inputs and outputs that `Ports` names.
`StandIn` is the way back: it lays a packed batch out as tables, asks any function of such tables, and gives
what the head would have given, so that tasks, scores and parity see no difference.

Legend: S sequences, L tokens of the longest, T tokens end to end, D width, C outputs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import NotSupported
from penjing.models import encdec
from penjing.models.encdec import padded as table_of
from penjing.models.heads import ClassHead, TagHead
from penjing.models.layers import bare
from penjing.models.load import Base
from penjing.models.packing import native
from penjing.models.towers import Nearness, Vectors
from penjing.models.word_head import WordHead
from penjing.records import Batch

IDS, MASK, TYPES, SAID, PIXELS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "decoder_input_ids",
    "pixel_values",
)
Tables = Mapping[str, np.ndarray]
Run = Callable[[Tables], list[np.ndarray]]


@dataclass(frozen=True)
class Ports:
    """What a padded model takes and gives, by name and in order.

    `each` says of every output whether it is one of each token, (S, L, C), or of the whole, (S, C). `pad` is
    the id that fills a row.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    each: tuple[bool, ...]
    pad: int

    @property
    def speaks(self) -> bool:
        """Whether it scores words: (S, L, V)."""
        return self.outputs == ("word_logits",)


class Padded(nn.Module):
    """Trunk and head over padded tables, given in the order of `ports.inputs`; gives `ports.outputs`."""

    def __init__(self, trunk: nn.Module, head: nn.Module, ports: Ports) -> None:
        super().__init__()
        self.trunk, self.head, self.ports = trunk, head, ports
        self.pooling: str | None = getattr(head, "pooling", None)
        accepted = inspect.signature(type(bare(trunk)).forward).parameters
        self._extra = {"use_cache": False} if "use_cache" in accepted else {}
        if isinstance(head, ClassHead):
            head.pooling = "cls"  # it gets rows that are pooled, and reads the first and only state of each
        if isinstance(head, TagHead) and head.whole is not None:
            self.pooling, head.whole.pooling = head.whole.pooling, "cls"

    def forward(self, *tables: Tensor) -> tuple[Tensor, ...]:
        """The outputs, fp32."""
        given = dict(zip(self.ports.inputs, tables, strict=True))
        states = self.trunk(**given, **self._extra).last_hidden_state  # (S, L, D)
        head = self.head
        if isinstance(head, TagHead):
            own = (head.out(states.float()),)
            return own if head.whole is None else (*own, self._of_pooled(head.whole, states, given))
        if isinstance(head, WordHead):
            flat = head(states.flatten(0, 1))
            return (flat.unflatten(0, (states.shape[0], states.shape[1])),)
        if isinstance(head, Vectors | Nearness):
            cut = self._pooled(states, given)[:, : getattr(head, "dimensions", None)]
            return (F.normalize(cut, dim=-1),)
        return (self._of_pooled(head, states, given),)

    def _of_pooled(self, head: nn.Module, states: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        pooled = self._pooled(states, given)
        found: Tensor = head(pooled, torch.ones_like(pooled[:, 0], dtype=torch.int64))
        return found

    def _pooled(self, states_SLD: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """(S, D), fp32: as `heads.pool` of packed states."""
        if self.pooling == "cls":
            return states_SLD[:, 0].float()
        if MASK not in given:  # images: every state is one
            return states_SLD.float().mean(1) if self.pooling == "mean" else states_SLD[:, -1].float()
        mask = given[MASK]
        if self.pooling == "last":
            last = (mask.sum(1) - 1).clamp(min=0)
            at = last[:, None, None].expand(-1, 1, states_SLD.shape[2])
            return states_SLD.gather(1, at)[:, 0].float()
        shares = mask.to(torch.float32)[:, :, None]
        if self.pooling == "max":
            return states_SLD.float().masked_fill(shares == 0, float("-inf")).amax(1)
        if self.pooling == "weightedmean":
            shares = shares * shares.cumsum(1)
        parts = shares.sum(1)
        total = (states_SLD.float() * shares).sum(1)
        return total / (parts.sqrt() if self.pooling == "mean_sqrt_len_tokens" else parts)


class StandIn(nn.Module):
    """A function of padded tables in a model's place: `stand_in(batch)` is what the head gives of a packed
    batch."""

    def __init__(self, base: Base, head: nn.Module, ports: Ports, run: Run) -> None:
        super().__init__()
        self.base, self.head, self.ports, self.run = base, head, ports, run
        self.here = nn.Parameter(torch.zeros(()), requires_grad=False)  # so that it is known to be on the CPU

    def forward(self, batch: Batch) -> Any:
        found = [torch.from_numpy(np.ascontiguousarray(one)) for one in self.run(self.tables(batch))]
        if isinstance(self.head, Nearness):
            first, second = found[0].unflatten(0, (-1, 2)).unbind(1)
            return (first * second).sum(-1)
        lengths = batch.lengths if batch.answer is None else batch.answer.lengths
        if self.ports.inputs != (PIXELS,) and any(self.ports.each):
            there = torch.arange(int(lengths.max()))[None] < lengths[:, None]
            found = [one[there] if each else one for one, each in zip(found, self.ports.each, strict=True)]
        if isinstance(self.head, TagHead):
            return found[0], found[1] if len(found) > 1 else None
        return found[0]

    def tables(self, batch: Batch) -> dict[str, np.ndarray]:
        """The batch as tables, int64, or fp32 images."""
        if batch.images is not None:
            assert self.base.way.sight is not None
            return {PIXELS: self.base.way.sight.normal(batch.images).numpy()}
        ids, there = table_of(batch.ids, batch.lengths.tolist(), self.ports.pad)
        made = {IDS: ids, MASK: there.long()}
        if TYPES in self.ports.inputs:
            made[TYPES] = torch.zeros_like(ids)
            if batch.segments is not None:
                made[TYPES][there] = batch.segments
        if SAID in self.ports.inputs:
            assert batch.answer is not None
            start = encdec.start_of(self.base.trunk)
            read = encdec.shifted(batch.answer.ids, batch.answer.lengths, start)
            made[SAID] = table_of(read, batch.answer.lengths.tolist(), self.ports.pad)[0]
        return {name: made[name].numpy() for name in self.ports.inputs}


def padded(base: Base, trunk: nn.Module, head: nn.Module) -> Padded:
    """The padded model of a trunk and a head, copied, on transformers' own attention.

    Raises:
        NotSupported: what stands around the trunk, or the head, has no such form.
    """
    ports = ports_of(base, trunk, head)
    made = Padded(copy.deepcopy(bare(trunk)), copy.deepcopy(head), ports).eval()
    native(made.trunk)
    return made


def ports_of(base: Base, trunk: nn.Module, head: nn.Module | None) -> Ports:
    """What the padded model of a trunk and a head takes and gives; without a head, the trunk's states.

    Raises:
        NotSupported: as for `padded`.
    """
    if getattr(bare(trunk), "added", None) is not None:
        raise NotSupported(
            f"A graph of {base.name} was wanted; the bundle's method put a module of its own around the "
            "trunk "
            "(virtual tokens, a prefix, a side network), which runs packed only. Tune with `method: lora` or "
            "`full`, or serve the bundle as it is."
        )
    outputs, each = (("states",), (True,)) if head is None else _given_by(head)
    if base.way.sight is not None:
        return Ports((PIXELS,), outputs, each, 0)
    config: Any = bare(trunk).config
    inputs: tuple[str, ...] = (IDS, MASK)
    accepted = inspect.signature(type(bare(trunk)).forward).parameters
    if TYPES in accepted and TYPES in base.tokenizer.model_input_names:
        inputs = (*inputs, TYPES)
    if encdec.is_whole(trunk):
        inputs = (*inputs, SAID)
    words = base.tokenizer
    known = (words.pad_token_id, getattr(config, "pad_token_id", None), words.eos_token_id, 0)
    return Ports(inputs, outputs, each, next(int(i) for i in known if isinstance(i, int) and i >= 0))


def _given_by(head: nn.Module) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    if isinstance(head, TagHead):
        return (("logits",), (True,)) if head.whole is None else (("logits", "whole_logits"), (True, False))
    if isinstance(head, WordHead):
        return ("word_logits",), (True,)
    if isinstance(head, Vectors | Nearness):
        return ("vectors",), (False,)
    if isinstance(head, ClassHead):
        return ("logits",), (False,)
    raise NotSupported(
        f"A graph with one output a text, or one a token, was wanted; the head {type(head).__name__} of this "
        "bundle "
        "reads more than one text's states (several queries, two marked entities, two towers with classes). "
        "Serve "
        "the bundle as it is, or tune a task with a plain head: `classify`, `pair` with `how: cross`, `tag`, "
        "`answer`, `choose`, `embed`."
    )
