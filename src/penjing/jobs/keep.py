"""`last/`: what an exact resume needs, in one safetensors file that is replaced in one step (and beside it,
where weights are sharded, a file a process: shares.py).

Batches and dropout are functions of (seed, step), so the state is: weights that train, optimizer,
techniques, counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penjing.engine.ranks import ALONE, Ranks
from penjing.errors import NotSupported
from penjing.jobs.shares import saved, write
from penjing.models.embedding import tables_in_use
from penjing.records import Technique
from penjing.run import Run

NAME = "last/state.safetensors"


def save(
    run: Run,
    model: nn.Module,
    optimizer: Optimizer,
    techniques: Sequence[Technique],
    counters: dict[str, Any],
    *,
    ranks: Ranks = ALONE,
) -> None:
    """Write the state. `counters` are plain JSON values, such as the step.

    All processes of a run come here at the same step; the first one's counters and techniques are kept.

    Raises:
        CannotWrite: no room or no right; the last good state stays.
    """
    if not ranks.first and not ranks.sharded:
        return
    tensors: dict[str, Tensor] = {}
    state: dict[str, Any] = {}
    plain = {"counters": counters, "decay": [m.decay for m in tables_in_use(model).values()], "state": state}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"model.{name}"] = parameter
    whole = {"optimizer": optimizer.state_dict()["state"]}
    whole |= {f"technique.{t.name}": t.state.state_dict() for t in techniques if t.state}
    for key, value in _leaves(whole, ""):
        if isinstance(value, Tensor):
            tensors[f"state.{key}"] = value
        else:
            state[key] = value
    write(run.folder / NAME, tensors, plain, step=int(counters.get("step", 0)), ranks=ranks)


def restore(
    run: Run, model: nn.Module, optimizer: Optimizer, techniques: Sequence[Technique]
) -> dict[str, Any] | None:
    """Put the saved state back; returns the counters, or None when nothing was saved yet.

    Raises:
        NotSupported: the file is damaged or of another spec.
    """
    from safetensors import SafetensorError

    path = run.folder / NAME
    if not path.is_file():
        return None
    weights = {f"model.{n}": p for n, p in model.named_parameters() if p.requires_grad}
    try:
        with saved(path) as file:
            plain = file.plain
            same = file.keys("model.") == weights.keys()
            same = same and all(file.shape(key) == tuple(p.shape) for key, p in weights.items())
            wanted = {**weights, **_state_of(optimizer, file.keys("state."))} if same else {}
            tensors = {key: file.get(key, like) for key, like in wanted.items()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise NotSupported(
            f"{path} could not be read ({error}); a saved state was wanted. It is damaged: delete the folder "
            f"last/ to begin this run again, or start a new one."
        ) from error
    if not same:
        raise NotSupported(
            f"{path} holds other weights than this run trains. Its spec.yaml was changed: start a new run."
        )
    with torch.no_grad():
        for key, parameter in weights.items():
            parameter.copy_(tensors[key])
    model.train()  # drops what was kept of the weights for evaluation
    for module, decay in zip(tables_in_use(model).values(), plain["decay"], strict=True):
        module.decay = decay
    state: dict[Any, Any] = {}
    moved = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    for key, value in {**moved, **plain["state"]}.items():
        _place(state, key.split("/"), value)
    groups = optimizer.state_dict()["param_groups"]
    moments = {int(i): values for i, values in state.get("optimizer", {}).items()}
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for technique in techniques:
        if technique.state:
            technique.state.load_state_dict(state.get(f"technique.{technique.name}", {}))
    return dict(plain["counters"])


def _state_of(optimizer: Optimizer, keys: set[str]) -> dict[str, Tensor | None]:
    """Key of a saved tensor: the parameter whose moments it holds, which says how it is shared out."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    owners: dict[str, Tensor | None] = dict.fromkeys(keys)
    for key in keys:
        if key.startswith("state.optimizer/"):
            owners[key] = parameters[int(key.split("/")[1])]
    return owners


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert "/" not in str(key), f"{key} holds a slash, which joins the keys of nested states"
            yield from _leaves(inner, f"{path}/{key}" if path else str(key))
    else:
        yield path, value


def _place(state: dict[Any, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        state = state.setdefault(key, {})
    state[keys[-1]] = value
