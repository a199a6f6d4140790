"""AdaLoRA: low-rank updates whose ranks follow the layers' needs (Zhang et al. 2023, arXiv 2303.10512), by
peft, driven by our loop.

peft adds the orthogonality term only where the model computes its own loss, and allocates ranks only when
somebody calls it while gradients are alive; both are techniques here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penjing.errors import SpecError
from penjing.models.wrap import targets_of, wrapped
from penjing.records import Batch, Loss, Method, Technique

SHORTEST = 2  # steps before the ranks are settled: importance must have been seen once


def adalora(
    *,
    rank: int = 8,
    start_rank: int | None = None,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Literal["all", "attention"] | list[str] = "all",
    orthogonality: float = 0.5,
    warm_share: float = 0.1,
    final_share: float = 0.3,
    allocate_every: int | None = None,
    sensitivity_beta: float = 0.85,
    uncertainty_beta: float = 0.85,
) -> Method:
    """Train updates P diag(E) Q, and let unimportant triplets go until the ranks average `rank`.

    rank: mean rank at the end. start_rank: rank of every layer at first, 1.5 times `rank` when not given.
    alpha: scale, twice `start_rank` when not given. dropout: on the updates' input. targets: as in `lora`.
    orthogonality: weight of the mean of |P'P - I| and |QQ' - I| in the loss. warm_share: of the steps, before
    ranks fall. final_share: of the steps, with ranks settled. allocate_every: steps between allocations, a
    hundredth of the run when not given. sensitivity_beta: smoothing of |w g|. uncertainty_beta: of its
    changes.
    """
    first = start_rank if start_rank is not None else max(rank + 1, round(1.5 * rank))
    _check(rank, first, orthogonality, warm_share, final_share, allocate_every)

    def apply(trunk: Any) -> nn.Module:
        from peft import AdaLoraConfig

        config = AdaLoraConfig(
            init_r=first,
            target_r=rank,
            lora_alpha=alpha if alpha is not None else 2 * first,
            lora_dropout=dropout,
            target_modules=targets_of(trunk, targets, "adalora.targets"),
            orth_reg_weight=orthogonality,
            beta1=sensitivity_beta,
            beta2=uncertainty_beta,
            total_step=1,  # the schedule is set when the run's steps are known
        )
        made = wrapped(trunk, config)
        for name, parameter in made.named_parameters():
            if "ranknum" in name:  # a constant, which moving it to the device `meta` made trainable
                parameter.requires_grad_(False)
        return made

    def techniques(trunk: Any, steps: int) -> Sequence[Technique]:
        config = trunk.peft_config["default"]
        config.total_step = steps
        config.tinit, config.tfinal = int(warm_share * steps), int(final_share * steps)
        config.deltaT = allocate_every or max(1, steps // 100)
        settled = steps - config.tfinal
        if settled < max(SHORTEST, config.tinit + 1):
            raise SpecError(
                f"`adalora` lets ranks fall from step {config.tinit} to step {settled}; of {steps} steps "
                f"that leaves too few. Train more steps, or lower `adalora.warm_share` and "
                f"`adalora.final_share`."
            )
        budget = _Budget(trunk)
        return [Technique("adalora", loss=budget.loss, after_update=budget.allocate, state=budget)]

    return Method("adalora", apply, lr=5e-3, saves="peft", by_width=0.5, techniques=techniques)


def _check(rank: int, first: int, orthogonality: float, warm: float, final: float, every: int | None) -> None:
    if rank < 1:
        raise SpecError(f"`adalora.rank` must be at least 1; it is {rank}. 4 to 16 are usual.")
    if first <= rank:
        raise SpecError(
            f"`adalora.start_rank` must be above `adalora.rank`, {rank}; it is {first}. Leave it out for 1.5 "
            f"times the rank, or take `method: lora`, whose ranks stay."
        )
    if not orthogonality >= 0:
        raise SpecError(
            f"`adalora.orthogonality` must be 0 or more; it is {orthogonality}. 0.1 to 0.5 are usual."
        )
    if not (0 <= warm < 1 and 0 <= final < 1 and warm + final < 1):
        raise SpecError(
            f"`adalora.warm_share` and `adalora.final_share` must be shares that leave room between them; "
            f"they are {warm} and {final}. 0.1 and 0.3 are usual."
        )
    if every is not None and every < 1:
        raise SpecError(
            f"`adalora.allocate_every` must be at least 1 step; it is {every}. Leave it out for a hundredth "
            f"of the run."
        )


def orthogonality_of(trunk: nn.Module) -> Tensor:
    """(): mean over all P (out, r) and Q (r, in) of the Frobenius norms |P'P - I| and |QQ' - I|.

    The paper squares the norms and sums; its authors' code and peft do as here.
    """
    gaps = []
    for name, parameter in trunk.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            gaps.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
    return torch.stack(gaps).mean()


class _Budget:
    """Orthogonality term and rank budget of one trunk; the budget itself is peft's."""

    def __init__(self, trunk: Any) -> None:
        self.trunk, self.tuner = trunk, trunk.base_model
        self.config = trunk.peft_config["default"]

    def loss(self, model: nn.Module, batch: Batch, found: Loss) -> Loss:
        weight = self.config.orth_reg_weight
        if not weight:
            return found
        term = orthogonality_of(self.trunk)
        parts = {**found.parts, "orthogonality": float(term.detach())}
        return Loss(found.mean + weight * term, parts, found.outputs)

    def allocate(self, model: nn.Module, step: int) -> None:
        settled = self.config.total_step - self.config.tfinal
        if step > settled and not self.config.rank_pattern:
            step = settled  # whose own update fp16 left out: ranks are settled now
        self.tuner.update_and_allocate(step)
        if step < settled:
            # Until they are settled, triplets let go may come back, and peft would save without them.
            self.config.rank_pattern = None

    def state_dict(self) -> dict[str, Any]:
        allocator = self.tuner.rankallocator
        return {
            "sensitivity": dict(allocator.exp_avg_ipt),
            "uncertainty": dict(allocator.exp_avg_unc),
            "ranks": dict(self.config.rank_pattern or {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        allocator = self.tuner.rankallocator
        place = next(self.trunk.parameters()).device
        for name, kept in (("sensitivity", allocator.exp_avg_ipt), ("uncertainty", allocator.exp_avg_unc)):
            kept.clear()
            kept.update({key: tensor.to(place) for key, tensor in state.get(name, {}).items()})
        allocator.ipt = dict(allocator.exp_avg_ipt)  # only its keys matter before the next step
        self.config.rank_pattern = state.get("ranks") or None
