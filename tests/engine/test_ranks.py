"""Several processes train as one: which rows are whose, sums of gradients, sharded weights, saved state."""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penjing import plugin
from penjing.data import batches
from penjing.data.batches import divide
from penjing.engine import optim, scoring
from penjing.engine.loop import train_steps
from penjing.engine.ranks import ALONE, Ranks, joined
from penjing.engine.sharding import check_sharded, put_together, shard
from penjing.errors import NotSupported, TrainingFailed
from penjing.jobs import keep
from penjing.keys import TrainSpec
from penjing.models.dropout import set_dropout
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.plugin import Choice
from penjing.records import Batch, Technique, Tokens
from penjing.run import Run
from penjing.tasks.classify import classify
from penjing.techniques.ema import ema
from processes import together

Tiny = Callable[..., Path]
N, STEPS = 26, 4
EPS = 1e-3  # a key's bias has no true gradient: with 1e-8 Adam would make steps of its rounding
LENGTHS = np.random.default_rng(0).integers(1, 30, N)
TOKENS = Tokens(
    np.random.default_rng(1).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(N) % 3
WEIGHTS = np.array([0.3, 1.0, 2.5], dtype=np.float32)[LABELS]
TASK = classify()


@dataclass(frozen=True)
class Case:
    """One way to train; `micro` tokens at once, `batch` rows a step."""

    strategy: str = "ddp"
    family: str = "bert"
    method: str = "full"
    optimizer: str = "adamw"
    batch: int = 6
    micro: int = 10_000
    precision: str = "fp32"
    dropout: float = 0.0
    techniques: tuple[str, ...] = ()
    stops: tuple[int, ...] = ()

    def __str__(self) -> str:
        own = {k: v for k, v in vars(self).items() if v != getattr(Case, k)}
        return "-".join(f"{k}={v}" if isinstance(v, int | float) else f"{v}" for k, v in own.items()) or "ddp"


def made(case: Case, folder: str, ranks: Ranks = ALONE) -> tuple[Model, Any]:
    base = load(folder)
    set_dropout(base.trunk, case.dropout)
    torch.manual_seed(0)
    method = plugin.build("methods", Choice(case.method, {}))
    trunk = method.apply(base.trunk)
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    head.out.bias.rate_factor = 3.0  # type: ignore[assignment]
    model = Model(trunk, head, base.way).prepare(case.precision, sharded=ranks.sharded)
    if ranks.sharded:
        shard(model, ranks)
    settings = TrainSpec(optimizer=case.optimizer, weight_decay=0.1, lr=0.02, eps=EPS)
    return model, optim.optimizer(model, settings, 0.02 if case.optimizer != "lion" else 0.002)


def stream(case: Case, start: int = 0) -> Iterator[list[Batch]]:
    for rows in batches.steps(LENGTHS, batch=case.batch, seed=0, group=True, start=start):
        pieces = batches.cut(rows, LENGTHS, tokens=case.micro)
        yield [batches.pack(TOKENS, piece, LABELS, WEIGHTS) for piece in pieces]


def train(case: Case, folder: str, place: str, ranks: Ranks, start: int, stop: int) -> dict[str, Any]:
    """Go on from what is saved in `place` up to step `stop`, and save; what was seen on the way."""
    model, optimizer = made(case, folder, ranks)
    techniques: list[Technique] = [ema(decay=0.5) for _ in case.techniques]
    run = Run(Path(place))
    if start:
        counters = keep.restore(run, model, optimizer, techniques)
        assert counters == {"step": start}
    loop = train_steps(
        model,
        stream(case, start),
        TASK.loss,
        optimizer,
        optim.schedule(TrainSpec(warmup=0.0), STEPS),
        steps=stop,
        start=start,
        techniques=techniques,
        ranks=ranks,
    )
    steps = [vars(step) | {"seconds": 0} for step in loop]
    scores = scoring.outputs(model, TOKENS, tokens=50, ranks=ranks)
    ranks.check_equal([*model.parameters()], "at the end")
    keep.save(run, model, optimizer, techniques, {"step": stop}, ranks=ranks)
    ranks.wait()
    with put_together(model, ranks):
        whole = {n: p.detach().numpy().copy() for n, p in model.named_parameters()} if ranks.first else {}
    return {"steps": steps, "scores": scores.numpy(), "weights": whole}


def in_one_of_several(cases: list[Case], folders: dict[str, str], place: str, part: int) -> list[Any]:
    torch.set_num_threads(1)
    found = []
    with joined("ddp", torch.device("cpu")) as ranks:
        for number, case in enumerate(cases):
            begin, end = [0, *case.stops, STEPS][part : part + 2]
            own = replace(ranks, strategy=case.strategy)
            found.append(train(case, folders[case.family], f"{place}/{number}", own, begin, end))
    return found


def alone(case: Case, folder: str, place: Path) -> dict[str, Any]:
    return train(case, folder, str(place), ALONE, 0, STEPS)


def close(case: Case, one: dict[str, Any], other: dict[str, Any], gap: float = 1e-5) -> None:
    for a, b in zip(one["steps"], other["steps"], strict=True):
        assert a.keys() == b.keys()
        assert a["loss"] == pytest.approx(b["loss"], abs=gap)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=max(gap, 1e-4))
        for name in ("step", "lr", "n_tokens", "n_rows"):
            assert a[name] == b[name], name
        assert a["n_targets"] == pytest.approx(b["n_targets"])
    assert one["weights"].keys() == other["weights"].keys()
    for name, weights in one["weights"].items():
        if name.endswith("key.bias") and case.optimizer == "lion":
            continue  # the sign of rounding, see EPS
        np.testing.assert_allclose(weights, other["weights"][name], atol=10 * gap, err_msg=name)
    np.testing.assert_allclose(one["scores"], other["scores"], atol=100 * gap)


# ---- whose rows are whose


@pytest.mark.parametrize("micro", [1, 40, 10_000])
@pytest.mark.parametrize("ways", [1, 2, 3, 7])
def test_the_rows_of_a_step_are_dealt_whole_once_and_evenly(ways: int, micro: int) -> None:
    own = next(stream(Case(batch=N, micro=micro)))
    shares = divide(own, ways)
    assert [r for share in shares for b in share for r in b.rows] == [r for b in own for r in b.rows]
    sizes = [sum(b.n_tokens for b in share) for share in shares]
    assert max(sizes) - min(sizes) <= 2 * LENGTHS.max()
    assert sum(b.n_targets for share in shares for b in share) == pytest.approx(WEIGHTS.sum())
    for batch in (b for share in shares for b in share):
        wanted = batches.pack(TOKENS, np.array(batch.rows), LABELS, WEIGHTS)
        assert torch.equal(batch.ids, wanted.ids)
        assert torch.equal(batch.labels, wanted.labels)
        assert torch.equal(batch.lengths, wanted.lengths)


def test_sharded_processes_make_as_many_passes_and_the_extra_ones_count_nothing() -> None:
    own = next(stream(Case(batch=3, micro=1)))
    dealt = [Ranks(rank, 2, "fsdp").mine(own) for rank in (0, 1)]
    assert len({len(mine) + len(idle) for mine, idle in dealt}) == 1
    rows = sorted(r for mine, _ in dealt for b in mine for r in b.rows)
    assert rows == sorted(r for b in own for r in b.rows)
    plain = [Ranks(rank, 2, "ddp").mine(own) for rank in (0, 1)]
    assert [len(idle) for _, idle in plain] == [0, 0]


def test_one_process_has_all_rows_as_they_are() -> None:
    own = next(stream(Case(micro=40)))
    assert ALONE.mine(own) == (own, [])
    assert ALONE.gather("x") == ["x"]


# ---- several train as one


CASES = [
    *(
        Case(strategy=strategy, family=family, method=method)
        for strategy, family, method in itertools.product(("ddp", "fsdp"), ("bert", "gpt2"), ("full", "lora"))
    ),
    *(
        changed
        for strategy in ("ddp", "fsdp")
        for changed in (
            Case(strategy, micro=40),
            Case(strategy, micro=1, batch=3),
            Case(strategy, batch=1),
            Case(strategy, optimizer="lion"),
            Case(strategy, optimizer="sgd"),
            Case(strategy, family="llama", method="lora"),
            Case(strategy, method="bitfit"),
            Case(strategy, method="top"),
        )
    ),
    Case(techniques=("ema",)),
    Case(optimizer="muon"),
    Case(optimizer="adafactor"),
    Case(method="ia3"),
    Case(method="adapter"),
    Case(method="prefix"),
    Case(method="side"),
]


@pytest.fixture(scope="module")
def two(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Any]:
    folders = {family: str(tiny(family)) for family in ("bert", "gpt2", "llama")}
    place = str(tmp_path_factory.mktemp("two"))
    first, second = together(2, in_one_of_several, CASES, folders, place, 0)
    for one, other in zip(first, second, strict=True):
        assert one["steps"] == other["steps"], "processes tell different steps"
        assert (one["scores"] == other["scores"]).all()
    return dict(zip(CASES, first, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_train_as_one(case: Case, two: dict[Case, Any], tiny: Tiny, tmp_path: Path) -> None:
    gap = 1e-3 if case.optimizer == "muon" else 1e-5  # Muon's own products are in bf16
    close(case, two[case], alone(case, str(tiny(case.family)), tmp_path), gap)


@pytest.mark.slow
def test_two_processes_train_as_one_here_and_now(tiny: Tiny, tmp_path: Path) -> None:
    case, folder = Case(micro=40), {"bert": str(tiny("bert"))}
    found = together(2, in_one_of_several, [case], folder, str(tmp_path / "two"), 0)[0][0]
    close(case, found, alone(case, folder["bert"], tmp_path / "one"))


# ---- saved and gone on with


RESUMED = [
    Case(strategy, family, method, stops=(1, 3))
    for strategy, family, method in (
        ("ddp", "bert", "full"),
        ("fsdp", "bert", "full"),
        ("fsdp", "gpt2", "lora"),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(2, 1, 2), (1, 2, 3)], ids=str)
def test_a_run_goes_on_with_another_number_of_processes(
    worlds: tuple[int, ...], tiny: Tiny, tmp_path: Path
) -> None:
    folders = {family: str(tiny(family)) for family in ("bert", "gpt2")}
    place = str(tmp_path / "several")
    pieces = [
        together(world, in_one_of_several, RESUMED, folders, place, part)[0]
        for part, world in enumerate(worlds)
    ]
    for number, case in enumerate(RESUMED):
        whole = alone(case, folders[case.family], tmp_path / f"{number}")
        own = [piece[number] for piece in pieces]
        found = own[-1] | {"steps": [step for piece in own for step in piece["steps"]]}
        close(case, found, whole)
        left = [p.name for p in Path(place, f"{number}", "last").glob("share-*")]
        assert len(left) == (worlds[-1] if case.strategy == "fsdp" and worlds[-1] > 1 else 0), left


# ---- what goes wrong is told


def differ(folder: str) -> str:
    with joined("ddp", torch.device("cpu")) as ranks:
        weight = torch.nn.Parameter(torch.full((2,), float(ranks.rank)))
        try:
            ranks.check_equal([weight], "at the start")
        except TrainingFailed as error:
            return str(error)
    return ""


def unlike(folder: str) -> str:
    try:
        with joined("fsdp" if os.environ["RANK"] == "1" else "ddp", torch.device("cpu")):
            return ""
    except NotSupported as error:
        return str(error)


def unsharded(folder: str) -> str:
    with joined("fsdp", torch.device("cpu")) as ranks:
        model, _ = made(Case(), folder)
        try:
            check_sharded(model, ranks)
        except NotSupported as error:
            return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (differ, "same weights at the start.*process 1"),
        (unlike, "began with .'ddp', 'fsdp'"),
        (unsharded, "fsdp.*embeddings.*whole.*ddp"),
    ],
)
def test_what_is_not_as_asked_is_an_error(wrong: Callable[[str], str], words: str, tiny: Tiny) -> None:
    for said in together(2, wrong, str(tiny("bert"))):
        assert re.search(words, said), said


def test_another_number_of_processes_than_the_spec_asks_for_is_an_error() -> None:
    with pytest.raises(NotSupported, match=r"asks for 3 processes; 1 were started.*--processes 3"):
        joined("ddp", torch.device("cpu"), wanted=3).__enter__()
