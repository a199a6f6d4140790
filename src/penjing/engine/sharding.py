"""Sharded training: each process holds a share of every weight, its gradient and its optimizer state (FSDP2).

`torch.distributed.fsdp.fully_shard` on every layer, and on the model for all that lies beside the layers. A
layer's weights are put together for its forward and again for its backward, and its gradients are summed and
shared out inside backward (Zhao et al. 2023, arXiv 2304.11277). In two-byte types the layers run in them with
sums in fp32; what lies beside the layers (tables, last norm, head) stays fp32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from penjing.engine.ranks import Ranks
from penjing.errors import NotSupported
from penjing.models.layers import bare, layers_of
from penjing.models.model import Model
from penjing.models.precision import WORKING

METHODS = ("full", "top", "bitfit", "lora")  # tried against one process in tests/engine/test_ranks.py


def shard(model: Model, ranks: Ranks) -> Model:
    """Leave this process its share of the model's weights. Before the optimizer is made.

    Raises:
        NotSupported: the base's layers share weights, or PyTorch did not shard them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    factors = {name: getattr(p, "rate_factor", 1.0) for name, p in model.named_parameters()}
    layers = layers_of(bare(model.trunk))
    place = next(model.parameters()).device.type
    mesh = init_device_mesh(place, (ranks.world,))
    working = WORKING.get(model.precision)
    policy = MixedPrecisionPolicy(
        param_dtype=working, reduce_dtype=torch.float32, output_dtype=torch.float32 if working else None
    )
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    # What lies beside the layers stays whole from forward to backward: a head is called after `states` ends.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "states")  # some tasks begin there
    for module in model.modules():
        if isinstance(module, FSDPModule):  # sums: the loop has weighted each share already
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    check_sharded(model, ranks)
    for name, parameter in model.named_parameters():  # other tensors than before
        parameter.rate_factor = factors[name]  # type: ignore[attr-defined]
    return model


def check_sharded(model: Model, ranks: Ranks) -> None:
    """See that every weight lies in shares, one a process.

    Raises:
        NotSupported: one does not.
    """
    weights: list[tuple[str, Any]] = [*model.named_parameters()]
    for name, parameter in weights:
        if not isinstance(parameter, DTensor) or parameter.device_mesh.size() != ranks.world:
            raise NotSupported(
                f"`train.strategy: fsdp` was to leave each of {ranks.world} processes a share of every "
                f"weight; {name} of {type(bare(model.trunk)).__name__} is whole "
                f"({type(parameter).__name__}). Take `train.strategy: ddp`."
            )


def local(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: DTensor) -> int:
    """Where this process's share begins, counted in rows (entries of the first dimension)."""
    each = -(-tensor.shape[0] // tensor.device_mesh.size())  # as torch.chunk cuts
    return min(each * tensor.device_mesh.get_local_rank(), tensor.shape[0])


@contextlib.contextmanager
def put_together(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Inside, the model of the first process has whole weights, on the CPU, to be saved; all must come here.

    Not to be run: for validation all processes run the model as it is.
    """
    if not ranks.sharded:
        yield
        return
    own: list[tuple[nn.Module, str, Any]] = []
    wholes: dict[int, nn.Parameter | None] = {}  # a table that a head shares stays one tensor
    with torch.no_grad():
        for module in model.modules():
            held: list[tuple[str, Any]] = [*module._parameters.items()]
            own += [(module, name, p) for name, p in held if isinstance(p, DTensor)]
        for module, name, parameter in own:
            if id(parameter) not in wholes:
                whole = parameter.full_tensor()  # one at a time: only the first process keeps them
                kept = nn.Parameter(whole.cpu(), parameter.requires_grad) if ranks.first else None
                wholes[id(parameter)] = kept
            if ranks.first:
                module._parameters[name] = wholes[id(parameter)]
    try:
        yield
    finally:
        for module, name, parameter in own:
            module._parameters[name] = parameter
