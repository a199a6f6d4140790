"""Which rows of a model's word tables are there: some are kept, and everything that counts in ids follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.data.vocab.trim import Trimmed
from penjing.errors import NotSupported
from penjing.models.layers import bare
from penjing.models.load import Base


def rows_of(trunk: nn.Module) -> int:
    """How many rows the word table has; more than the tokenizer has ids, where a family fills up."""
    return int(bare(trunk).get_input_embeddings().weight.shape[0])


def ids_in_config(trunk: nn.Module) -> set[int]:
    """Ids that the configs of a trunk name: padding, first and last words, where decoding begins."""
    found = (value for config in _configs(trunk) for _, value in _ids(config))
    every = {i for value in found for i in (value if isinstance(value, list) else [value])}
    return {i for i in every if 0 <= i < rows_of(trunk)}


def keep_words(base: Base, trimmed: Trimmed) -> Base:
    """The base with these words alone, its trunk changed in place: tables, tokenizer and config.

    Raises:
        NotSupported: the trunk has tables of words beside its word table.
    """
    trunk = base.trunk
    n_rows, table = rows_of(trunk), bare(trunk).get_input_embeddings().weight
    kept = torch.as_tensor(trimmed.kept, device=table.device)
    for name, parameter in trunk.named_parameters():
        if parameter is not table and n_rows in parameter.shape and n_rows > 2 * base.width:
            raise NotSupported(
                f"One table of words was to be trimmed; {type(trunk).__name__} has another, `{name}`, of "
                f"shape {tuple(parameter.shape)}. Leave out `trim_vocabulary`."
            )
    fewer = nn.Parameter(table.detach()[kept].clone(), requires_grad=table.requires_grad)
    module: Any
    for module in trunk.modules():
        if getattr(module, "weight", None) is table:
            module.weight = fewer
            module.num_embeddings = len(kept)
            pad = getattr(module, "padding_idx", None)
            module.padding_idx = None if pad is None else trimmed.new_id(pad)
    for config in _configs(trunk):
        _follow(config, n_rows, trimmed)
    return replace(base, tokenizer=trimmed.tokenizer)


def rows_kept(
    state: Mapping[str, Tensor], shapes: Mapping[str, Tensor], kept: np.ndarray
) -> dict[str, Tensor]:
    """A head's weights, cut to the rows kept wherever the new head has just that many in place of all.

    Whole numbers stay out: they are ids, which the new head has of its own tokenizer.
    """
    rows = torch.as_tensor(kept)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name not in shapes or not tensor.is_floating_point():
            continue
        for axis, (old, new) in enumerate(zip(tensor.shape, shapes[name].shape, strict=True)):
            if old != new:
                tensor = tensor.index_select(axis, rows.to(tensor.device))
        found[name] = tensor
    return found


def _configs(trunk: nn.Module) -> list[Any]:
    """The configs of a trunk and of its parts, each once."""
    found = [c for m in trunk.modules() if (c := getattr(m, "config", None)) is not None]
    return list({id(c): c for c in found if hasattr(c, "vocab_size")}.values())


def _ids(config: Any) -> list[tuple[str, Any]]:
    """What a config names ids by, and the ids."""
    said = {**vars(config)}
    return [(k, v) for k, v in said.items() if k.endswith(("_token_id", "_token_ids")) and v is not None]


def _follow(config: Any, n_rows: int, trimmed: Trimmed) -> None:
    for name in ("vocab_size", "decoder_vocab_size"):
        if getattr(config, name, None) == n_rows:
            setattr(config, name, len(trimmed.kept))
    for name, value in _ids(config):
        many = value if isinstance(value, list) else [value]
        new = [trimmed.new_id(i) for i in many]
        setattr(config, name, new if isinstance(value, list) else new[0])
