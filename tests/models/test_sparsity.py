"""Patterns of zeros to the weight, scores by hand, SparseGPT beside inverses made anew for each column."""

import pytest
import torch
from torch import Tensor

from penjing.compressors.gptq import inverse_factor
from penjing.errors import NotSupported, SpecError
from penjing.models.sparsity import Pattern, magnitudes, mask_of, pattern_of, sparse_gpt, wanda_scores


def draw(n_out: int = 6, n_in: int = 16) -> tuple[Tensor, Tensor]:
    """(O, I) weights and 200 correlated inputs, float64."""
    x = torch.randn(200, n_in, dtype=torch.float64) @ torch.randn(n_in, n_in, dtype=torch.float64)
    return torch.randn(n_out, n_in, dtype=torch.float64), x


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 0.99])
def test_a_share_is_met_to_the_weight_and_the_least_go(share: float) -> None:
    scores = torch.rand(7, 40)
    rows, layer = (mask_of(scores, Pattern(share, over=over)) for over in ("row", "layer"))  # type: ignore[arg-type]
    assert (~rows).sum(1).tolist() == [int(share * 40 + 1e-9)] * 7
    assert int((~layer).sum()) == int(share * 280 + 1e-9)
    assert not (~layer).any() or scores[~layer].max() <= scores[layer].min()


def test_two_of_four_are_the_two_greatest_of_each_four() -> None:
    mask = mask_of(torch.tensor([[4.0, 1, 2, 3, 1, 1, 1, 1]]), pattern_of("wanda", 0.5, "2:4"))
    assert mask.tolist() == [[True, False, False, True, False, False, True, True]]
    assert str(pattern_of("wanda", 0.5, "2:4")) == "2:4"
    three = pattern_of("wanda", 0.5, "3:4")
    assert str(three) == "3:4"
    assert (~mask_of(torch.rand(3, 16), three)).view(-1, 4).sum(1).tolist() == [1] * 12


def test_wanda_with_equal_inputs_is_magnitude_by_row() -> None:
    weight, _ = draw()
    same = torch.eye(16, dtype=torch.float64) * 5 + torch.ones(16, 16)
    by_row = Pattern(0.5)
    ours, plain = (mask_of(s, by_row) for s in (wanda_scores(weight, same), magnitudes(weight)))
    assert torch.equal(ours, plain)


def test_wandas_score_is_magnitude_times_the_norm_of_what_enters() -> None:
    weight, x = draw()
    torch.testing.assert_close(wanda_scores(weight, x.T @ x), weight.abs() * x.norm(dim=0))


@pytest.mark.parametrize("pattern", [Pattern(0.5), Pattern(0.5, m=4), Pattern(0.0)])
@pytest.mark.parametrize("block", [5, 128])
def test_sparsegpt_is_the_naive_update_column_by_column(pattern: Pattern, block: int) -> None:
    """For the zeros it chose: each pruned column solved for with the inverse over the columns still free."""
    weight, x = draw()
    outer = x.T @ x
    found = sparse_gpt(weight, inverse_factor(outer, 0.01), pattern, block=block)
    damped = outer + 0.01 * outer.diagonal().mean() * torch.eye(16)
    naive = weight.clone()
    for q in range(16):
        inverse = torch.linalg.inv(damped[q:, q:])
        lost = torch.where(found[:, q] == 0, naive[:, q], 0.0)
        naive[:, q:] -= (lost / inverse[0, 0])[:, None] * inverse[0]
    torch.testing.assert_close(found, naive, rtol=1e-8, atol=1e-8)
    zeros = (found == 0).sum()
    assert int(zeros) == int(pattern.share * found.numel())


def test_sparsegpt_errs_less_than_wanda_and_wanda_less_than_magnitude() -> None:
    errors = torch.zeros(3)
    for seed in range(5):
        torch.manual_seed(seed)
        weight, x = draw(32, 64)
        x = x * torch.logspace(-1, 1, 64)
        outer, half = x.T @ x, Pattern(0.5)
        wanda = weight * mask_of(wanda_scores(weight, outer), half)
        plain = weight * mask_of(magnitudes(weight), half)
        ours = sparse_gpt(weight, inverse_factor(outer, 0.01), half)
        errors += torch.tensor([float((x @ (w - weight).T).norm()) for w in (ours, wanda, plain)])
    assert errors[0] < errors[1] < errors[2]


def test_shares_and_patterns_that_are_none_are_refused() -> None:
    with pytest.raises(SpecError, match=r"`wanda.share` is the share .* it is 1.0"):
        pattern_of("wanda", 1.0, None)
    for bad in ("2", "4:2", "a:b", "2:4:6"):
        with pytest.raises(SpecError, match="n weights left of every m"):
            pattern_of("wanda", 0.5, bad)
    with pytest.raises(NotSupported, match="a layer has 6 inputs"):
        mask_of(torch.rand(2, 6), pattern_of("wanda", 0.5, "2:4"))
