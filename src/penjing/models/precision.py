"""Working copies: the trunk runs in bf16 (or fp16) while its parameters stay fp32.

Each forward casts what is trained once (a cast has a graph, so gradients arrive in fp32) and keeps what is
frozen in the working type for good. The whole trunk then runs natively in bf16: unlike autocast, which keeps
the residual stream in fp32 and casts it again before every linear layer (a tenth of a MiniLM step). Embedding
tables are never cast: only the rows looked up are. What says `runs_fp32` is left as it is, with all that it
holds. On CUDA this is what FSDP2's mixed-precision policy does.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WORKING = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precision of a spec: type the trunk runs in


class WorkingCopies:
    """The parameters of a trunk as tensors of the working type. `active()` puts them in place for one
    forward.
    """

    def __init__(self, trunk: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._kept: dict[int, Tensor] = {}
        precise = {
            id(m) for top in trunk.modules() if getattr(top, "runs_fp32", False) for m in top.modules()
        }
        read = {id(getattr(m, "rel_embeddings", None)) for m in trunk.modules()}  # DeBERTa reads it whole
        for module in (m for m in trunk.modules() if id(m) not in precise):
            if id(module) not in read and _looks_up(module):
                module.register_forward_hook(self._cast_output)
                continue
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.is_floating_point():
                    continue
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
                elif parameter.dtype != dtype:
                    self._places.append((module, name, parameter))
        if hasattr(trunk, "peft_config"):
            _reconcile(trunk, dtype)

    def _cast_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.to(self.dtype)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, modules see working copies; outside, their parameters."""
        copies = [(module, name, self._copy(p)) for module, name, p in self._places]
        with swapped(copies):
            yield

    def _copy(self, parameter: nn.Parameter) -> Tensor:
        if torch.is_grad_enabled():
            return parameter.to(self.dtype)
        if id(parameter) not in self._kept:
            self._kept[id(parameter)] = parameter.detach().to(self.dtype)
        return self._kept[id(parameter)]

    def forget(self) -> None:
        """Drop the copies kept for evaluation. Fused optimizers do not count the versions of what they write,
        so `Model.train` calls this: copies live from one training step to the next.
        """
        self._kept.clear()


def _looks_up(module: nn.Module) -> bool:
    """Whether a module gives rows of a table; M2M100's positions are one that nothing trains."""
    named = "PositionalEmbedding" in type(module).__name__
    return named or isinstance(module, nn.Embedding) or getattr(module, "looks_up_rows", False)


def _reconcile(trunk: nn.Module, dtype: torch.dtype) -> None:
    """Let adapter layers that hold buffers (VeRA's random maps, for one) run under autocast.

    Buffers stay fp32, as they are saved, and products of two types are an error outside autocast.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in trunk.modules():
        if isinstance(layer, BaseTunerLayer) and any(b.is_floating_point() for b in layer.buffers()):
            layer.forward = functools.partial(_under_autocast, layer.forward, dtype)


def _under_autocast(whole: Any, dtype: torch.dtype, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    with torch.autocast(x.device.type, dtype):
        return whole(x, *args, **kwargs).to(x.dtype)  # type: ignore[no-any-return]


_OURS = "_penjing_working_copies"


@contextlib.contextmanager
def swapped(copies: list[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    """Let modules see these tensors in place of their parameters, whose order stays as it was."""
    saved = {id(module): (module, dict(module._parameters)) for module, _, _ in copies}
    try:
        for module, name, tensor in copies:
            del module._parameters[name]
            module.__dict__[name] = tensor
            module.__dict__.setdefault(_OURS, {})[name] = tensor
        yield
    finally:
        for module, parameters in saved.values():
            for name in module.__dict__.pop(_OURS, {}):
                module.__dict__.pop(name, None)
            module._parameters.clear()
            module._parameters.update(parameters)


def recompute(trunk: nn.Module) -> bool:
    """Turn on gradient checkpointing for every layer that offers it; True when there is one.

    The recomputation runs inside backward, when the working copies are gone: each layer keeps the ones it was
    run with.
    """
    found = False
    modules: list[Any] = list(trunk.modules())
    for module in modules:
        if hasattr(module, "gradient_checkpointing") and hasattr(type(module), "_can_checkpoint_with_cache"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = _again
            found = True
    return found


def _again(call: functools.partial[Any], *args: Any) -> Any:
    layer = call.args[0]
    copies = [
        (module, name, tensor)
        for module in layer.modules()
        for name, tensor in module.__dict__.get(_OURS, {}).items()
    ]

    def forward(*inputs: Any) -> Any:
        if all(module.__dict__.get(name) is tensor for module, name, tensor in copies):
            return call(*inputs)
        with swapped(copies):
            return call(*inputs)

    return checkpoint(forward, *args, use_reentrant=False)
