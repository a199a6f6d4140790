"""Loss scaling for fp16, where gradients below 6e-8 vanish (Micikevicius et al. 2018, arXiv 1710.03740, 3.2).

The loss is multiplied by a power of two, so all gradients are; in fp32 they are divided by it again.

torch's GradScaler looks through all gradients for one that overflowed; the loop knows their norm already, and
a fused optimizer divides while it reads them, so all that is left to keep here is the factor.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LossScale:
    """The factor: halved when gradients overflow (that step is skipped), doubled after many good steps."""

    value: float = 2.0**16
    good: int = 0  # steps since it last changed
    patience: int = 2000  # good steps before it is doubled

    def judge(self, norm: float) -> str:
        """Learn from a step's gradient norm; a note where the step must be skipped, else nothing.

        At a factor of 1 nothing is left to halve: the gradients are at fault, and the loop says so.
        """
        if norm < float("inf"):
            self.good += 1
            if self.good == self.patience:
                self.value, self.good = 2 * self.value, 0
        elif self.value > 1:
            self.value, self.good = self.value / 2, 0
            return f"gradients overflowed in fp16: step skipped, loss scale halved to {self.value:,.0f}"
        return ""
