"""Quantization-aware training: the model learns while it computes in few bits (Jacob et al. 2018, arXiv
1712.05877), so that the compressor of the same name as `to` takes nothing from it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from penjing.errors import SpecError
from penjing.models.grid import Grid
from penjing.models.layers import linears_of
from penjing.models.rounding import Rounded, vectors_on_grid
from penjing.models.word_head import words_of
from penjing.records import Outset, Technique


def qat(
    *,
    to: Literal["int8", "round"] = "int8",
    bits: int | None = None,
    group: int | None = None,
    symmetric: bool = True,
    embeddings: bool = True,
    start: float = 0.1,
) -> Technique:
    """Train as if weights, and with `int8` activations too, were held in few bits already.

    Every validation is of the model in few bits. What is saved are the full weights: `penjing compress` with
    the same step and settings (`int8`, `round(bits=4)`) rounds them as they were trained.

    to: the compressor that will follow: `int8`, weights and activations in 8 bits, or `round`, weights alone.
    bits, group, symmetric: of `round`; 4 bits when not given. embeddings: the word table in int8, too. start:
    share of the steps after which training begins to round; 1 leaves everything out.
    """
    if not 0 <= start <= 1:
        raise SpecError(f"`qat.start` is a share of the steps, 0 to 1; it is {start}. 0.1 is usual.")
    given = {"bits": bits is not None, "group": group is not None, "symmetric": not symmetric}
    idle = [name for name, said in given.items() if said]
    if to == "int8" and idle:
        raise SpecError(
            f"`qat.{idle[0]}` is of `to: round`; with `to: int8` it would be ignored. Leave it out, or say "
            "`to: round`."
        )
    grid = None if to == "int8" else Grid(bits or 4, group, symmetric)
    if start == 1:
        return Technique("qat")
    clock = _Clock()

    def begin(outset: Outset) -> None:
        model, base = outset.model, outset.base
        _refuse(model)
        rounds = _Rounds(model, clock)
        for name in linears_of(model.trunk):
            layer = model.trunk.get_submodule(name)
            layer.forward = Rounded(layer, grid, rounds)
        if embeddings and base.way.sight is None and words_of(model.head) is None:
            _round_vectors(model.trunk.get_input_embeddings(), rounds)
        if model.frozen is not None:
            model.frozen = replace(model.frozen, reason="`qat` rounds what its layers compute")

    def plan(steps: int) -> None:
        clock.first = start * steps

    def after_update(model: nn.Module, step: int) -> None:
        clock.step = step

    return Technique("qat", begin=begin, plan=plan, after_update=after_update, state=clock)


@dataclass
class _Clock:
    """Steps made, and that after which training rounds."""

    step: int = 0
    first: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state.get("step", 0))


@dataclass(frozen=True, eq=False)
class _Rounds:
    """Whether layers round: always in validation, in training from the first step on."""

    model: nn.Module
    clock: _Clock

    def __call__(self) -> bool:
        return not self.model.training or self.clock.step >= self.clock.first


def _round_vectors(table: nn.Module, rounds: _Rounds) -> None:
    def note(module: nn.Module, args: Any, out: Tensor) -> Tensor | None:
        return vectors_on_grid(out) if rounds() else None

    table.register_forward_hook(note, prepend=True)  # before what makes them bf16


def _refuse(model: Any) -> None:
    """What would be rounded otherwise in the end than it was in training.

    Raises:
        SpecError: adapters, or weights in another type than fp32.
    """
    trunk = model.trunk
    if hasattr(trunk, "peft_config") or getattr(trunk, "added", None) is not None:
        raise SpecError(
            "`qat` rounds the weights that will be held; adapters would be merged into them first. Take "
            "`method: full`, `top` or `bitfit`, or `penjing merge` the run and tune it on with `qat`."
        )
    if model.precision != "fp32":
        raise SpecError(
            f"`qat` rounds fp32 weights, as the compressor will; `precision` is {model.precision}. Set "
            "`precision: fp32`."
        )
