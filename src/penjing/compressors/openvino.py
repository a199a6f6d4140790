"""The trunk as a graph of OpenVINO in 8 bits: the fastest way here on a CPU of Intel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.graphing import held_as, refuse
from penjing.models.compiled import Kind, library
from penjing.models.compiling import compiled
from penjing.models.encdec import padded

TOGETHER = 8  # calibration rows in a table


def openvino(*, to: Kind = "int8", rows: int = 300) -> Compressor:
    """Run the trunk as a graph compiled by OpenVINO; last of a chain. Takes `penjing[fast]`.

    to: `int8`, weights and activations, by NNCF on the train rows (`rows` of them); `weights`, 8 bits of the
    weights alone; `fp32`.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        refuse(held)
        made = held_as(held, compiled(held.base, to, _tables(held, rehearsal)))
        release = library("openvino").__version__
        return Shrunk(made, {"to": to, "openvino": release, "rows": len(rehearsal.part)})

    return Compressor("openvino", shrink, wants="texts" if to == "int8" else "nothing", rows=rows)


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
