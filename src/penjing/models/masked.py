"""Zeros that grow in a model while it trains: which weights are masked, and what is remembered of them.

A masked weight is exactly 0 in the model from one step to the next. What it was is kept beside, where it may
come back (movement pruning). Legend: O outputs, I inputs of a linear layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from penjing.errors import SpecError
from penjing.models.layers import linears_of
from penjing.models.sparsity import Pattern, mask_of

By = Literal["magnitude", "movement", "zeros"]


class Masks:
    """The masks of the linear layers that train, by the names of their weights. True: the weight stays."""

    def __init__(self, by: By, over: Literal["row", "layer"]) -> None:
        self.by, self.over = by, over
        self.masks: dict[str, Tensor] = {}  # of the weight's own shape
        self.scores: dict[str, Tensor] = {}  # of movement: minus the sum of weight times gradient
        self.hidden: dict[str, Tensor] = {}  # of movement: what masked weights were, 0 elsewhere
        self._names: list[str] | None = None

    def weights(self, model: Any) -> Iterator[tuple[str, nn.Parameter, bool]]:
        """(name, weight, whether it lies as inputs by outputs, as GPT-2's does) of layers that train.

        Raises:
            SpecError: none trains, an adapter does, or weights lie in shares over several processes.
        """
        if self._names is None:
            self._names = _names(model.trunk)
        for name in self._names:
            layer = model.trunk.get_submodule(name)
            for kept in (self.masks, self.scores, self.hidden):
                if name in kept:  # as it was read, perhaps, from a saved state
                    kept[name] = kept[name].to(layer.weight.device)
            yield name, layer.weight, not isinstance(layer, nn.Linear)

    @torch.no_grad()
    def edit_grads(self, model: nn.Module) -> None:
        """Masked weights get no gradient; movement's scores take it in first (Sanh et al. 2020, arXiv
        2005.07683, eq. 2: straight through the mask)."""
        for name, weight, _ in self.weights(model):
            if weight.grad is None:
                continue
            if self.by == "movement":
                score = self.scores.setdefault(name, torch.zeros_like(weight))
                score.addcmul_(weight.grad, self._whole(name, weight), value=-1)
            if name in self.masks:
                weight.grad.mul_(self.masks[name])

    @torch.no_grad()
    def renew(self, model: nn.Module, share: float) -> None:
        """Mask this share of each layer: the weights of least magnitude, or of least score."""
        for name, weight, turned in self.weights(model):
            whole = self._whole(name, weight)
            mask = self._mask(name, whole, turned, share)
            self.masks[name] = mask
            if self.by == "movement":
                self.hidden[name] = whole * ~mask
            weight.copy_(torch.where(mask, whole, 0.0))

    @torch.no_grad()
    def begin(self, model: nn.Module) -> None:
        """Mask the weights that are 0 now."""
        self.masks = {name: weight != 0 for name, weight, _ in self.weights(model)}

    @torch.no_grad()
    def hold(self, model: nn.Module) -> None:
        """Masked weights are 0 again, whatever an optimizer's momentum did."""
        for name, weight, _ in self.weights(model):
            if name in self.masks:
                weight.masked_fill_(~self.masks[name], 0.0)

    @contextlib.contextmanager
    def shown(self, model: nn.Module, share: float) -> Iterator[None]:
        """Inside, this share of each layer is masked; outside, all is bit for bit as it was."""
        kept = {name: weight.detach().clone() for name, weight, _ in self.weights(model)}
        before = self.masks, self.hidden
        self.masks, self.hidden = dict(self.masks), dict(self.hidden)
        try:
            self.renew(model, share)
            model.train(model.training)  # drops what was kept of the other weights for evaluation
            yield
        finally:
            self.masks, self.hidden = before
            with torch.no_grad():
                for name, weight, _ in self.weights(model):
                    weight.copy_(kept[name])
            model.train(model.training)

    def _whole(self, name: str, weight: Tensor) -> Tensor:
        """The weight with what is masked: as it was when it was masked, or 0, not what momentum made."""
        if name not in self.masks:
            return weight.detach()
        return torch.where(self.masks[name], weight, self.hidden.get(name, torch.zeros_like(weight)))

    def _mask(self, name: str, whole: Tensor, turned: bool, share: float) -> Tensor:
        scores = whole.abs() if self.by == "magnitude" else self.scores.get(name, torch.zeros_like(whole))
        mask = mask_of(scores.t() if turned else scores, Pattern(share, over=self.over))
        return mask.t().contiguous() if turned else mask

    def state_dict(self) -> dict[str, Any]:
        return {"masks": dict(self.masks), "scores": dict(self.scores), "hidden": dict(self.hidden)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks = {name: mask.bool() for name, mask in state.get("masks", {}).items()}
        self.scores = dict(state.get("scores", {}))
        self.hidden = dict(state.get("hidden", {}))


def _names(trunk: nn.Module) -> list[str]:
    found = [name for name in linears_of(trunk) if trunk.get_submodule(name).weight.requires_grad]
    if not found or hasattr(trunk, "peft_config"):
        raise SpecError(
            f"`sparsify` sets weights of a base's linear layers to zero while they train; "
            f"{'an adapter trains in their place' if found else 'none of them trains'}. Say `method: full`."
        )
    if any(isinstance(trunk.get_submodule(name).weight, DTensor) for name in found):
        raise SpecError(
            "`sparsify` compares the weights of whole layers; here each process has a share of them. Train "
            "with whole copies, or on one device."
        )
    return found
