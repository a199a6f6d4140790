"""Evaluation mode for a while leaves every module as it was."""

import pytest
from torch import nn

from penjing.models.modes import evaluating


def test_every_module_has_its_own_mode_again_whatever_happened() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(2, 2))).train()
    model[1].eval()
    before = [part.training for part in model.modules()]
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == before
    with pytest.raises(TypeError), evaluating(model):
        model(object())
    assert [part.training for part in model.modules()] == before
