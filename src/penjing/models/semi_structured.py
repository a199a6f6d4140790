"""Weights with two zeros in every four, multiplied by CUDA's sparse tensor cores (Mishra et al. 2021, arXiv
2104.08378).

A layer is given torch's semi-structured product only after a trial in its own shape: right, and faster than
the dense one. The dense weight stays the parameter, so files and whoever reads it know nothing of this.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 4096  # tokens of the trial
LEAST = 1.05  # times as fast: less is noise
TWO_BYTES = (torch.bfloat16, torch.float16)


def is_semi_structured(weight_OI: Tensor) -> bool:
    """Whether of every four neighbours in a row at least two are 0, in a shape that the kernels take."""
    n_out, n_in = weight_OI.shape
    if n_out % 32 or n_in % 64:
        return False
    return bool(((weight_OI.reshape(-1, 4) == 0).sum(1) >= 2).all())


def quicken(trunk: nn.Module) -> int:
    """Let linear layers with such weights, on CUDA in two bytes, be multiplied so where that is faster; how
    many are. Only for a trunk that does not train.
    """
    tried: dict[tuple[int, ...], bool] = {}
    n_quick = 0
    for layer in trunk.modules():
        if type(layer) is not nn.Linear or layer.weight.dtype not in TWO_BYTES or not layer.weight.is_cuda:
            continue
        weight = layer.weight.detach()
        if not is_semi_structured(weight):
            continue
        sparse = _sparse(weight)
        shape = tuple(weight.shape)
        if sparse is not None and shape not in tried:
            tried[shape] = _pays(weight, sparse)
        if sparse is not None and tried[shape]:
            layer.__dict__["forward"] = functools.partial(_multiply, layer, sparse)
            n_quick += 1
    return n_quick


def _sparse(weight: Tensor) -> Tensor | None:
    """The weight as torch's semi-structured tensor; None where this build or card has none."""
    try:
        from torch.sparse import to_sparse_semi_structured

        made: Tensor = to_sparse_semi_structured(weight.contiguous())
        return made
    except (ImportError, RuntimeError, ValueError, NotImplementedError):
        return None


def _multiply(layer: Any, sparse: Tensor, x: Tensor) -> Tensor:
    return F.linear(x.contiguous(), sparse, layer.bias)


def _pays(weight: Tensor, sparse: Tensor) -> bool:
    x = torch.randn(ROWS, weight.shape[1], device=weight.device, dtype=weight.dtype)
    try:
        with torch.no_grad():
            dense, found = F.linear(x, weight), F.linear(x, sparse)
            right = bool((found - dense).abs().max() <= 0.02 * dense.abs().max())
            seconds = [_seconds(functools.partial(F.linear, x, w)) for w in (weight, sparse)]
    except (RuntimeError, NotImplementedError):
        return False
    return right and seconds[0] > LEAST * seconds[1]


def _seconds(act: Callable[[], Tensor], times: int = 20) -> float:
    """Of the quickest of three rounds."""
    rounds = []
    for _ in range(3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            act()
        torch.cuda.synchronize()
        rounds.append(time.perf_counter() - began)
    return min(rounds)
