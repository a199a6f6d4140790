"""The trunk as a graph of OpenVINO in 8 bits: the fastest way here on a CPU of Intel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.errors import NotSupported
from penjing.models import compiled
from penjing.models.compiled import Kind
from penjing.models.compiling import compiled as compiled_trunk
from penjing.models.encdec import is_whole, padded
from penjing.models.model import Model
from penjing.models.stored import kind_of
from penjing.models.word_head import words_of

TOGETHER = 8  # calibration rows in a table


def openvino(*, to: Kind = "int8", rows: int = 300) -> Compressor:
    """Run the trunk as a graph compiled by OpenVINO; last of a chain. Takes `penjing[fast]`.

    to: `int8`, weights and activations, by NNCF on the train rows (`rows` of them); `weights`, 8 bits of the
    weights alone; `fp32`.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        _refuse(held)
        made = compiled_trunk(held.base, to, _tables(held, rehearsal))
        base = replace(held.base, trunk=made, way=compiled.way())
        model = Model(made.requires_grad_(False), held.model.head, base.way).prepare("fp32")
        facts = {"to": to, "openvino": compiled.library().__version__, "rows": len(rehearsal.part)}
        return Shrunk(replace(held, base=base, model=model.eval()), facts)

    return Compressor("openvino", shrink, wants="texts" if to == "int8" else "nothing", rows=rows)


def _refuse(held: Held) -> None:
    """Raises NotSupported for what a graph of states does not hold."""
    trunk: Any = held.model.trunk
    kinds = sorted({kind for module in trunk.modules() if (kind := kind_of(module)) is not None})
    what = (
        f"its layers are held as {', '.join(kinds)} already"
        if kinds
        else "it says words, each after the last"
        if words_of(held.model.head) is not None or is_whole(trunk)
        else "it reads images"
        if held.base.way.sight is not None
        else "it is one already"
        if isinstance(trunk, compiled.Compiled)
        else ""
    )
    if what:
        raise NotSupported(
            f"A trunk of plain layers that reads texts was wanted for a graph; of `{held.base.name}` {what}. "
            "Take `int8`, or let `openvino` come in the place of steps that hold weights in few bits."
        )


def _tables(held: Held, rehearsal: Rehearsal) -> Iterator[Mapping[str, np.ndarray]]:
    """Calibration rows as padded tables, rows of like length together."""
    import torch

    tokens = rehearsal.part.tokens
    order = np.argsort(tokens.lengths, kind="stable")
    pad = held.base.tokenizer.pad_token_id or 0
    for at in range(0, len(order), TOGETHER):
        own = tokens.take(order[at : at + TOGETHER])
        ids, there = padded(torch.as_tensor(own.ids.astype(np.int64)), own.lengths.tolist(), pad)
        types = torch.zeros_like(ids)
        if own.segments is not None:
            types[there] = torch.as_tensor(own.segments.astype(np.int64))
        yield {
            "input_ids": ids.numpy(),
            "attention_mask": there.long().numpy(),
            "token_type_ids": types.numpy(),
        }
