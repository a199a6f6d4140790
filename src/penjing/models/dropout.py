"""Dropout that does not wait for random numbers.

torch draws one 32-bit number an element on the CPU, serially, and that was 13 % of a MiniLM step. Here one
64-bit draw of numpy's SFC64 serves four elements (15 bits each: the share dropped is p to within 1/32768),
and the factors 0 and 1 / (1 - p) are made of the bits in place by whole-number operations. Each call's
generator is seeded by one draw from torch's, so a seed of torch decides everything, and recomputed
activations get the same mask.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 15


def dropout_factor(
    shape: torch.Size | tuple[int, ...],
    p: float,
    dtype: torch.dtype,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What to multiply with: 0 for a share p of the elements, 1 / (1 - p) for the rest. On the CPU.

    `generator`: torch's own where none is given.
    """
    level = _level(p)
    n = int(np.prod(shape))
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    bits_of = np.random.Generator(np.random.SFC64(seed))
    draws = bits_of.integers(0, 1 << 64, (n + 3) // 4, dtype=np.uint64)
    bits = torch.from_numpy(draws.view(np.int16))[:n].view(shape)
    # 15 bits r: r - (levels - level) is negative for all but a share p; its sign over 16 bits is the mask
    bits.bitwise_and_(_LEVELS - 1).sub_(_LEVELS - level).bitwise_right_shift_(15)
    scale = _LEVELS / (_LEVELS - level)
    if dtype == torch.bfloat16:
        return bits.bitwise_and_(int(torch.tensor(scale, dtype=dtype).view(torch.int16))).view(dtype)
    return bits.to(dtype).mul_(-scale)


def _level(p: float) -> int:
    return round(p * _LEVELS)


def drops(p: float) -> bool:
    """Whether a rate p drops anything at all; where not, no random number is drawn."""
    return _level(p) > 0


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None


def drop(x: Tensor, factor: Tensor) -> Tensor:
    """x times a factor of its shape that has no gradient."""
    return _Drop.apply(x, factor)  # type: ignore[no-any-return]


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Set a share `p` of the elements to zero and scale the rest up to the same mean; any shape."""
    if not drops(p):
        return x
    if x.device.type != "cpu" or _level(p) >= _LEVELS:
        return F.dropout(x, p)
    return drop(x, dropout_factor(x.shape, p, x.dtype))


class Dropout(nn.Module):
    """`nn.Dropout` by `fast_dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return fast_dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


def start_from(seed: int) -> None:
    """As `torch.manual_seed`, which also writes a traceback down for every kind of device that is not in use:
    a tenth of a millisecond at every step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class Stream:
    """The random numbers of one trial among several: those that it would draw from torch if it were alone."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._cpu = torch.Generator()
        self._own = torch.Generator(self.device) if self.device.type == "cuda" else self._cpu

    def restart(self, seed: int) -> None:
        """As `torch.manual_seed(seed)`, for this stream alone."""
        self._cpu.manual_seed(seed)
        self._own.manual_seed(seed)

    def factor(self, shape: tuple[int, ...], p: float, dtype: torch.dtype) -> Tensor:
        """As `dropout_factor`, on the stream's device."""
        if self.device.type == "cpu":
            return dropout_factor(shape, p, dtype, self._cpu)
        kept = torch.empty(shape, dtype=dtype, device=self.device).bernoulli_(1 - p, generator=self._own)
        return kept.div_(1 - p)

    @contextlib.contextmanager
    def as_default(self) -> Iterator[None]:
        """Inside, what draws from torch's own generators draws from this stream."""
        pairs = [(torch.default_generator, self._cpu)]
        if self.device.type == "cuda":
            torch.cuda.init()
            pairs.append((torch.cuda.default_generators[self.device.index or 0], self._own))
        before = [default.get_state() for default, _ in pairs]
        try:
            for default, own in pairs:
                default.set_state(own.get_state())
            yield
            for default, own in pairs:
                own.set_state(default.get_state())
        finally:
            for (default, _), state in zip(pairs, before, strict=True):
                default.set_state(state)


def hasten(trunk: nn.Module) -> None:
    """Replace every plain `nn.Dropout` below `trunk`, in place."""
    for parent in list(trunk.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))


def set_dropout(trunk: nn.Module, p: float) -> None:
    """Give every dropout of a base the rate p, those kept as numbers too; adapters keep their own. BART's
    `layerdrop` leaves out whole layers, which is another thing: nothing but 0 reaches it.
    """
    for place, module in trunk.named_modules():
        if "lora_" in place:
            continue
        if isinstance(module, nn.Dropout | Dropout):
            module.p = p
        for name, value in list(vars(module).items()):
            if type(value) in (int, float) and "drop" in name and (not p or "layerdrop" not in name):
                setattr(module, name, p)
