"""Evaluation mode for a while, in which a module is tried, and what such a trial may end in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

# What transformers' modules throw at what they were not made for, such as another's attention.
FAILURES = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, a trunk or model is in evaluation mode; afterwards, whatever happened, every module of it is in
    the mode it was in.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        module.train(modes[0][1])  # a Model does more than set a flag
        for part, mode in modes:
            part.training = mode
