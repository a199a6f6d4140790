"""Training only the word rows in use, against training the whole table."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.data.batches import pack
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.keys import TrainSpec
from penjing.models.dropout import set_dropout
from penjing.models.embedding import RowsInUse, train_rows_in_use, whole_state
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Batch, Tokens
from penjing.tasks.classify import classify

Tiny = Callable[..., Path]
LENGTHS = [3, 9, 5, 1, 12, 6, 6, 2]
N_STEPS = 12


def rows(base: Base, *, every: int = 3) -> Tokens:
    """Eight rows that use every third ordinary word."""
    special = set(base.tokenizer.all_special_ids)
    allowed = [i for i in range(len(base.tokenizer)) if i not in special][::every]
    ids = np.random.default_rng(0).choice(allowed, sum(LENGTHS)).astype(np.int32)
    return Tokens(ids, np.concatenate([[0], np.cumsum(LENGTHS)]))


def stream(tokens: Tokens) -> Iterator[list[Batch]]:
    labels = np.arange(len(LENGTHS)) % 3
    draw = np.random.default_rng(1)
    while True:
        yield [pack(tokens, draw.permutation(len(LENGTHS))[:4], labels)]


def trained(
    folder: Path, *, in_use: bool, precision: str = "fp32", **settings: Any
) -> tuple[Model, list[float]]:
    """A model after some steps with decay, clipping and a schedule; and its losses."""
    base = load(str(folder))
    set_dropout(base.trunk, 0.0)
    tokens = rows(base)
    if in_use:
        assert train_rows_in_use(base.trunk, np.unique(tokens.ids)) is not None
    torch.manual_seed(0)
    model = Model(base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way).prepare(
        precision
    )
    spec = TrainSpec(weight_decay=0.2, warmup=0.25, schedule="cosine", clip=0.5, **settings)
    loop = train_steps(
        model,
        stream(tokens),
        classify().loss,
        optim.optimizer(model, spec, 3e-3),
        optim.schedule(spec, N_STEPS),
        steps=N_STEPS,
        clip=spec.clip,
    )
    found = list(loop)
    assert any(step.grad_norm > 0.5 for step in found)  # clipping had something to do
    return model, [step.loss for step in found]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "llama", "modernbert"])
def test_rows_in_use_end_where_dense_training_ends(family: str, tiny: Tiny) -> None:
    dense, losses = trained(tiny(family), in_use=False)
    few, few_losses = trained(tiny(family), in_use=True)
    assert np.abs(np.subtract(losses, few_losses)).max() < 1e-6
    wanted, found = whole_state(dense.trunk), whole_state(few.trunk)
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert tensor.shape == found[name].shape
        assert float((tensor - found[name]).abs().max()) < 1e-6, name


def test_rows_never_used_have_only_decayed(tiny: Tiny) -> None:
    before = load(str(tiny("bert"))).trunk.get_input_embeddings().weight.detach()
    dense, _ = trained(tiny("bert"), in_use=False)
    few, _ = trained(tiny("bert"), in_use=True)
    table = few.trunk.get_input_embeddings()
    unused = np.setdiff1d(np.arange(len(before)), rows(load(str(tiny("bert")))).ids)
    after = table.full()[unused]
    assert table.decay < 0.999
    assert torch.equal(after, before[unused] * table.decay)
    assert float((after - dense.trunk.get_input_embeddings().weight.detach()[unused]).abs().max()) < 1e-6


def test_a_rate_of_their_own_for_lower_layers_is_followed_too(tiny: Tiny) -> None:
    dense, _ = trained(tiny("bert"), in_use=False, layer_decay=0.5)
    few, _ = trained(tiny("bert"), in_use=True, layer_decay=0.5)
    for name, tensor in whole_state(dense.trunk).items():
        assert float((tensor - whole_state(few.trunk)[name]).abs().max()) < 1e-6, name


def test_in_bf16_the_rows_in_use_train_like_the_whole_table(tiny: Tiny) -> None:
    _, losses = trained(tiny("bert"), in_use=False, precision="bf16")
    _, few = trained(tiny("bert"), in_use=True, precision="bf16")
    assert np.abs(np.subtract(losses, few)).max() < 2e-2


def test_a_padded_base_can_train_its_rows_in_use(tiny: Tiny) -> None:
    """MPNet is padded, and the padding word is in no row."""
    dense, losses = trained(tiny("mpnet"), in_use=False)
    few, few_losses = trained(tiny("mpnet"), in_use=True)
    assert np.abs(np.subtract(losses, few_losses)).max() < 1e-6
    for name, tensor in whole_state(dense.trunk).items():
        assert float((tensor - whole_state(few.trunk)[name]).abs().max()) < 1e-6, name


def table(n: int = 10, used: tuple[int, ...] = (2, 3, 7), **settings: Any) -> tuple[nn.Embedding, RowsInUse]:
    whole = nn.Embedding(n, 4, **settings)
    return whole, RowsInUse(whole, np.array(used))


def test_unused_rows_are_looked_up_in_evaluation() -> None:
    whole, few = table()
    ids = torch.tensor([[0, 2], [9, 7]])
    with torch.no_grad():
        assert torch.equal(few.eval()(ids), whole(ids))


def test_evaluation_sees_what_training_has_changed() -> None:
    whole, few = table()
    few.eval()(torch.tensor([2]))
    few.train()
    with torch.no_grad():
        few.weight += 1
    few.decay = 0.5
    with torch.no_grad():
        found = few.eval()(torch.tensor([2, 3, 7, 0]))
    assert torch.equal(found[:3], whole.weight[[2, 3, 7]] + 1)
    assert torch.equal(found[3:], whole.weight[[0]] * 0.5)


def test_evaluation_sees_a_step_of_the_fused_optimizer() -> None:
    """Fused optimizers do not raise the version of what they write, so versions cannot be trusted."""
    whole, few = table()
    few.eval()(torch.tensor([2]))
    few.train().weight.grad = torch.ones_like(few.weight)
    torch.optim.AdamW(few.parameters(), lr=0.1, fused=True).step()
    with torch.no_grad():
        assert not torch.equal(few.eval()(torch.tensor([2])), whole.weight[[2]])


def test_training_on_a_row_that_is_not_in_use_is_refused() -> None:
    _, few = table()
    with pytest.raises(AssertionError, match="outside the rows in use"):
        few.train()(torch.tensor([0]))


def test_the_padding_row_gets_no_gradient_as_in_torch() -> None:
    _, few = table(padding_idx=3)
    few.train()(torch.tensor([2, 3, 3, 7])).sum().backward()
    assert few.weight.grad is not None
    assert few.weight.grad.sum(1).tolist() == [4, 0, 4]


def test_rows_that_many_tokens_share_get_the_sum_of_their_gradients() -> None:
    whole, few = table()
    ids, pull = torch.tensor([2, 7, 2, 2, 3]), torch.randn(5, 4)
    (few.train()(ids) * pull).sum().backward()
    (whole(ids) * pull).sum().backward()
    assert few.weight.grad is not None
    assert whole.weight.grad is not None
    assert torch.equal(few.weight.grad, whole.weight.grad[[2, 3, 7]])


def test_whole_state_is_what_the_base_would_have_saved(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    before = {name: tensor.clone() for name, tensor in base.trunk.state_dict().items()}
    train_rows_in_use(base.trunk, np.array([3, 5]))
    after = whole_state(base.trunk)
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_whole_state_can_be_saved_after_scoring(tiny: Tiny) -> None:
    """Scoring runs in inference mode; what it leaves must still be an ordinary tensor to save and load."""
    base = load(str(tiny("bert")))
    few = train_rows_in_use(base.trunk, np.array([3, 5]))
    assert few is not None
    with torch.inference_mode():
        few.eval()(torch.tensor([1]))
    state = whole_state(base.trunk)["embeddings.word_embeddings.weight"]
    assert not state.is_inference()
    state += 1


def test_a_table_mostly_in_use_stays_as_it_is(tiny: Tiny) -> None:
    trunk = load(str(tiny("bert"))).trunk
    assert train_rows_in_use(trunk, np.arange(trunk.get_input_embeddings().num_embeddings)) is None
    assert type(trunk.get_input_embeddings()) is nn.Embedding


def test_a_frozen_table_stays_as_it_is(tiny: Tiny) -> None:
    trunk = load(str(tiny("bert"))).trunk
    trunk.get_input_embeddings().weight.requires_grad_(False)
    assert train_rows_in_use(trunk, np.array([3])) is None


def test_a_tied_table_stays_as_it_is(tiny: Tiny) -> None:
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(tiny("bert"))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert train_rows_in_use(model, np.array([3])) is None


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def test_the_rest_of_the_base_gets_the_same_gradients(tiny: Tiny) -> None:
    dense, few = load(str(tiny("bert"))), load(str(tiny("bert")))
    tokens = rows(dense)
    train_rows_in_use(few.trunk, np.unique(tokens.ids))
    batch = pack(tokens, np.arange(4))
    for base in (dense, few):
        set_dropout(base.trunk, 0.0)
        Model(base.trunk.train(), nn.Identity(), base.way).states(batch).square().mean().backward()
    wanted, found = gradients(dense.trunk), gradients(few.trunk)
    assert wanted.keys() == found.keys()
    used = np.unique(np.append(tokens.ids, dense.trunk.config.pad_token_id))  # a padded base looks that up
    for name, grad in wanted.items():
        own = grad[used] if name.startswith("embeddings.word") else grad
        assert torch.equal(own, found[name]), name
