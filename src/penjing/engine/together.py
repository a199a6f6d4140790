"""Several optimizers as one, for rules that suit some parameters only, such as Muon's for hidden matrices."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer


class Together(Optimizer):
    """Steps its parts one after another; groups, state and what is saved are theirs, in their order."""

    def __init__(self, *parts: Optimizer) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Parts hold the very groups and state of the whole."""
        first = 0
        for part in self._parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `load_state_dict` ends with: groups and state are new objects now."""
        super().__setstate__(state)
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every part; the loop computes losses, so there is no closure."""
        assert closure is None, "the loop computes losses"
        for part in self._parts:
            part.step()
