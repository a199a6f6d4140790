"""What must hold on CUDA: packed as padded, half precisions close, memory that runs out, resume, fp16.

Skipped where there is no GPU. Numbers differ from a CPU's in the last digits, and from run to run where a
kernel adds in any order, so nothing here is asked to be equal bit for bit.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from penjing import tune
from penjing.data.batches import pack
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.scaling import LossScale
from penjing.jobs import keep
from penjing.jobs.news import News
from penjing.jobs.train import resume
from penjing.keys import TrainSpec
from penjing.methods.lora import lora
from penjing.models import four_bit, packing, varlen
from penjing.models.dropout import set_dropout
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Batch, Step, Tokens
from penjing.tasks.classify import classify

pytestmark = pytest.mark.gpu
Tiny = Callable[..., Path]
CUDA = torch.device("cuda")


def rows_of(n_rows: int, longest: int) -> Tokens:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, longest, n_rows)
    return Tokens(
        rng.integers(40, 150, lengths.sum()).astype(np.int32), np.concatenate([[0], lengths.cumsum()])
    )


def model_of(folder: Path, precision: str = "fp32") -> Model:
    base = load(str(folder), device=CUDA)
    set_dropout(base.trunk, 0.0)
    torch.manual_seed(0)
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0).to(CUDA)
    return Model(base.trunk, head, base.way).prepare(precision)


def run(model: nn.Module, tokens: Tokens, *, steps: int, scale: LossScale | None = None) -> list[Step]:
    def stream() -> Iterator[list[Batch]]:
        while True:
            yield [pack(tokens, np.arange(len(tokens)), np.arange(len(tokens)) % 3)]

    made = optim.optimizer(model, TrainSpec(), 1e-2)
    return list(
        train_steps(model, stream(), classify().loss, made, lambda step: 1.0, steps=steps, scale=scale)
    )


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packed_equals_padded(family: str, precision: str, tiny: Tiny) -> None:
    model, tokens = model_of(tiny(family), precision).eval(), rows_of(12, 40)
    assert model.way.packed, model.way.reason
    batch = pack(tokens, np.arange(12)).to(CUDA)
    with torch.no_grad():
        packed = model.states(batch).float()
        packing._native(model.trunk)
        model.way = packing.Way(False)
        padded = model.states(batch).float()
    gap = float((packed - padded).abs().max() / padded.abs().max())
    assert gap < (1e-4 if precision == "fp32" else 0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_variable_length_kernel_is_found_right(dtype: torch.dtype) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("flash attention needs compute capability 8.0")
    assert varlen._works(CUDA, dtype)
    assert varlen.fits(torch.zeros(1, 4, 9, 16, dtype=dtype, device=CUDA), 0.0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_in_half_precision_follows_fp32(precision: str, tiny: Tiny) -> None:
    tokens = rows_of(24, 30)
    exact = run(model_of(tiny("bert")), tokens, steps=10)
    scale = LossScale() if precision == "fp16" else None
    found = run(model_of(tiny("bert"), precision), tokens, steps=10, scale=scale)
    assert [s.loss for s in found] == pytest.approx([s.loss for s in exact], rel=0.05)
    assert found[-1].loss < 0.9 * found[0].loss


def test_memory_that_runs_out_halves_the_micro_batches(tiny: Tiny) -> None:
    tokens, model = rows_of(4000, 100), model_of(tiny("bert"))
    wanted = run(model_of(tiny("bert")), tokens, steps=1)[0]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        step = run(model, tokens, steps=1)[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "memory ran out" in step.notes[0]
    assert step.loss == pytest.approx(wanted.loss, rel=1e-4)
    assert step.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_stopped_run_comes_to_the_same_end(precision: str, small: dict[str, Any]) -> None:
    small |= {"device": "cuda", "precision": precision}
    small["train"] |= {"save_s": 0}
    whole = tune(small, name="whole")

    def tell(news: News) -> None:
        if news.text.startswith("loss") and news.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small, name="half", tell=tell)
    half = resume(Path(small["out"]) / "half")
    one, other = (load_file(r.folder / keep.NAME) for r in (whole, half))
    assert one.keys() == other.keys()
    assert max(_gap(one[name], other[name]) for name in one if name.startswith("model.")) < 1e-3


def test_weights_in_four_bits_are_the_cpus_and_learn(tiny: Tiny) -> None:
    weight = torch.randn(64, 96)
    here = four_bit.unpacked(four_bit.packed(weight), (64, 96), torch.float32)
    there = four_bit.unpacked(four_bit.packed(weight.to(CUDA)), (64, 96), torch.float32)
    assert torch.allclose(there.cpu(), here, atol=1e-6)
    base = load(str(tiny("llama")), device=CUDA)
    set_dropout(base.trunk, 0.0)
    trunk = lora(rank=4, quantize="nf4").apply(base.trunk)
    head = ClassHead(base.width, 3, pooling="last", dropout=0.0).to(CUDA)
    model = Model(trunk, head, base.way).prepare("bf16")
    found = run(model, rows_of(24, 30), steps=10)
    assert found[-1].loss < 0.9 * found[0].loss


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
