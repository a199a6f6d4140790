"""Evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


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
