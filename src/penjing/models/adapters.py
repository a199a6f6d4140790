"""Adapters of several models over one base: finding them, sharing the base's weights, and stacking them.

Legend: N members, r rank (padded to the largest of the stack), d_in and d_out widths of a linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.models.layers import bare


@dataclass(frozen=True)
class Adapter:
    """One low-rank pair: the layer's output gains scale * up @ down @ x, with dropout on that x."""

    down: nn.Parameter  # (r, d_in)
    up: nn.Parameter  # (d_out, r)
    scale: float
    dropout: float

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


def adapters_of(trunk: nn.Module) -> dict[str, Adapter]:
    """The plain LoRA pairs of a trunk by the name of the layer they adapt, in the base's order."""
    return {name: _adapter(layer) for name, layer in _lora_layers(trunk) if not _more_than_plain(layer)}


def why_alone(trunk: nn.Module) -> str:
    """Why a trunk cannot share its forward pass with others; empty when it can."""
    layers = _lora_layers(trunk)
    if getattr(trunk, "added", None) is not None:
        return "its method puts a module around the trunk"
    if not layers:
        return "it has no LoRA layers"
    for name, layer in layers:
        more = _more_than_plain(layer)
        if more:
            return f"its layer {name} {more}"
    own = {id(p) for a in adapters_of(trunk).values() for p in (a.down, a.up)}
    other = [name for name, p in trunk.named_parameters() if p.requires_grad and id(p) not in own]
    if other:
        return f"it also trains {other[0]}"
    if any(getattr(module, "gradient_checkpointing", False) for module in trunk.modules()):
        return "it recomputes activations (`train.checkpointing`)"
    return ""


def _lora_layers(trunk: nn.Module) -> list[tuple[str, Any]]:
    """peft's LoRA layers by the name of the layer they wrap."""
    if not hasattr(trunk, "peft_config"):
        return []
    from peft.tuners.lora.layer import LoraLayer

    return [(name, m) for name, m in bare(trunk).named_modules() if isinstance(m, LoraLayer)]


def _more_than_plain(layer: Any) -> str:
    """What a LoRA layer does beyond W x + scale up down x."""
    from peft.tuners.lora.layer import Linear

    names = layer.active_adapters
    if not isinstance(layer, Linear):
        return f"is a {type(layer).__name__}"
    if type(layer.base_layer).__name__ not in ("Linear", "Conv1D"):
        return f"wraps a {type(layer.base_layer).__name__}"
    if len(names) != 1 or names[0] not in layer.lora_A or layer.merged:
        return "has several adapters, or a merged one"
    if layer.lora_variant:
        return "uses DoRA or another variant of LoRA"
    return "has a bias in its adapter" if layer.lora_B[names[0]].bias is not None else ""


def plain_weight(layer: Any) -> Tensor:
    """A linear layer's weight as (d_out, d_in); GPT-2's Conv1D keeps it the other way round."""
    return layer.weight.t() if type(layer).__name__ == "Conv1D" else layer.weight  # type: ignore[no-any-return]


def _adapter(layer: Any) -> Adapter:
    name = layer.active_adapters[0]
    return Adapter(
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        float(layer.scaling[name]),
        float(getattr(layer.lora_dropout[name], "p", 0.0)),
    )


def twin(trunk: nn.Module) -> Any:
    """A copy of the modules over the same storage: what one adds or switches, the other does not see."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in trunk.parameters()
    }
    memo |= {id(b): b for b in trunk.buffers()}
    return copy.deepcopy(trunk, memo)


def share_weights(trunk: nn.Module, owner: nn.Module) -> str:
    """Let the weights of `trunk` but for its adapters lie where the plain `owner` has them.

    Returns the name of a weight that differs, and then changes nothing; empty when all are equal.
    """
    theirs = {_plain_name(name): p for name, p in owner.named_parameters()}
    own = {id(p) for a in adapters_of(trunk).values() for p in (a.down, a.up)}
    pairs = []
    wrapped: nn.Module = bare(trunk)
    for name, parameter in wrapped.named_parameters():
        if id(parameter) in own:
            continue
        other = theirs.get(_plain_name(name))
        if other is None or other.dtype != parameter.dtype or other.device != parameter.device:
            return name
        if other.data_ptr() != parameter.data_ptr() and not torch.equal(other, parameter):
            return name
        pairs.append((parameter, other))
    for parameter, other in pairs:
        parameter.data = other.data
    return ""


def _plain_name(name: str) -> str:
    """A weight's name without the wrappers of peft and of the grouped layer."""
    return name.replace(".base_layer.", ".")


class Flat:
    """The adapters of one model in one row of memory: (P,) values and (P,) gradients.

    Each parameter becomes a view into the row (the up matrix transposed), so that optimizers and copies can
    go over many at once; the parameters stay the model's own.
    """

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self.adapters = dict(adapters)
        first = next(iter(self.adapters.values())).down
        size = sum(a.down.numel() + a.up.numel() for a in self.adapters.values())
        self.values = first.new_empty(size, requires_grad=False)
        self.grads = torch.zeros_like(self.values)
        self._ends: dict[int, tuple[int, int]] = {}
        at = 0
        for adapter in self.adapters.values():
            at = self._lay(adapter.down, at, transposed=False)
            at = self._lay(adapter.up, at, transposed=True)

    def _lay(self, parameter: nn.Parameter, at: int, *, transposed: bool) -> int:
        end = at + parameter.numel()
        rows = parameter.shape[1] if transposed else parameter.shape[0]
        views = [row[at:end].view(rows, -1) for row in (self.values, self.grads)]
        value, grad = (v.t() if transposed else v for v in views)
        value.copy_(parameter.detach())
        parameter.data, parameter.grad = value, grad
        self._ends[id(parameter)] = (at, end)
        return end

    def joined(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """The same elements in fewer parameters: neighbours in the row become one, others stay themselves."""
        spans: list[tuple[int, int]] = []
        for at, end in sorted(self._ends[id(p)] for p in parameters if id(p) in self._ends):
            if spans and spans[-1][1] == at:
                at = spans.pop()[0]
            spans.append((at, end))
        made = []
        for at, end in spans:
            made.append(nn.Parameter(self.values[at:end]))
            made[-1].grad = self.grads[at:end]
        return made + [p for p in parameters if id(p) not in self._ends]


class Stack:
    """Adapters of N models side by side in the working type, ranks padded with zeros.

    `down[name]` (N, r, d_in) and `up[name]` (N, r, d_out) are what a grouped layer multiplies with;
    `down_grads` and `up_grads` what it adds gradients to, in fp32, where the stack `trains`.
    """

    def __init__(
        self, members: Sequence[Mapping[str, Adapter]], dtype: torch.dtype, *, trains: bool = True
    ) -> None:
        self.members = members
        names = list(dict.fromkeys(name for m in members for name in m))
        some = {name: next(m[name] for m in members if name in m) for name in names}
        self.ranks = {name: max(m[name].rank for m in members if name in m) for name in names}
        widths = {name: (a.down.shape[1], a.up.shape[0]) for name, a in some.items()}
        size = sum(self.ranks[name] * sum(widths[name]) for name in names)
        device = next(iter(some.values())).down.device
        self.values = torch.zeros(len(members), size, dtype=dtype, device=device)
        self.grads = torch.zeros(len(members), size if trains else 0, device=device)
        self.down: dict[str, Tensor] = {}
        self.up: dict[str, Tensor] = {}
        self.down_grads: dict[str, Tensor] = {}
        self.up_grads: dict[str, Tensor] = {}
        at = 0
        for name in names:
            for width, here, grads in zip(
                widths[name], (self.down, self.up), (self.down_grads, self.up_grads), strict=True
            ):
                end = at + self.ranks[name] * width
                shape = (len(members), self.ranks[name], width)
                here[name] = self.values[:, at:end].view(shape)
                if trains:
                    grads[name] = self.grads[:, at:end].view(shape)
                at = end
        self.scales = {
            name: torch.tensor(
                [m[name].scale if name in m else 0.0 for m in members], dtype=dtype, device=device
            )[:, None, None]
            for name in names
        }
        self.dropouts = {name: [m[name].dropout if name in m else 0.0 for m in members] for name in names}
        # something a grouped layer can depend on: the base below it may need no gradient
        self.anchor = torch.zeros((), device=device, requires_grad=True)

    def _pairs(self, member: int, *, grads: bool) -> list[tuple[Tensor, Tensor]]:
        """(place in the stack, place in the member) of every matrix of one member."""
        down, up = (self.down_grads, self.up_grads) if grads else (self.down, self.up)
        found = []
        for name, adapter in self.members[member].items():
            for here, parameter, turn in ((down, adapter.down, False), (up, adapter.up, True)):
                own = parameter.grad if grads else parameter.detach()
                assert own is not None
                found.append((here[name][member, : adapter.rank], own.t() if turn else own))
        return found

    def _fills(self, member: int) -> bool:
        """Whether a member's own row has the very layout of the stack's."""
        ranks = {name: a.rank for name, a in self.members[member].items()}
        return ranks == self.ranks and list(ranks) == list(self.ranks)

    def load(self, rows: Sequence[Flat] = ()) -> None:
        """Read the members' weights. `rows`, if given, are where they lie, for one copy a member."""
        with torch.no_grad():
            for member in range(len(self.members)):
                if rows and self._fills(member):
                    self.values[member].copy_(rows[member].values)
                else:
                    into, out = zip(*self._pairs(member, grads=False), strict=True)
                    torch._foreach_copy_(into, out)

    def unload(self, rows: Sequence[Flat]) -> None:
        """Write the gradients into the members' rows."""
        for member, row in enumerate(rows):
            if self._fills(member):
                row.grads.copy_(self.grads[member])
            else:
                out, into = zip(*self._pairs(member, grads=True), strict=True)
                torch._foreach_copy_(into, out)
