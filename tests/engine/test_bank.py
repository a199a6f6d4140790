"""The bank: N trials together equal each alone by the ordinary loop over peft, whoever else is there."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing import bundle
from penjing import spec as specs
from penjing.device import Machine, choose
from penjing.engine import optim
from penjing.engine.bank import BY_ELEMENT, Bank, Trial
from penjing.engine.loop import train_steps
from penjing.engine.scoring import outputs
from penjing.errors import NotSupported
from penjing.jobs.prepare import (
    Data,
    Part,
    card_of,
    load_base,
    n_steps,
    part_of,
    ready,
    rows_of,
    stream,
    task_of,
)
from penjing.jobs.trials import trial_of
from penjing.models.adapters import Adapter, Flat
from penjing.models.load import Base
from penjing.records import Batch, Step
from penjing.spec import Spec

pytestmark = pytest.mark.slow  # every test trains several models, and each alone

Tiny = Callable[..., Path]

# Ranks, scales, layers, rates, decay, clipping, schedules, lengths, batch sizes and orders: all different.
MANY: dict[str, dict[str, Any]] = {
    "a": {"method": {"lora": {"rank": 4}}, "lr": 0.02, "batch": 8, "seed": 1},
    "b": {
        "method": {"lora": {"rank": 2, "alpha": 3.0, "targets": "attention"}},
        "lr": 0.01,
        "batch": 5,
        "seed": 2,
    },
    "c": {
        "method": {"lora": {"rank": 3, "rslora": True, "dropout": 0.3}},
        "batch": 12,
        "micro_tokens": 70,
        "schedule": "cosine",
        "betas": [0.8, 0.95],
        "weight_decay": 0.2,
        "layer_decay": 0.5,
        "head_lr": 0.05,
        "clip": 0.1,
        "seed": 3,
    },
    "d": {
        "method": {"lora": {"rank": 1}},
        "optimizer": "sgd",
        "lr": 0.05,
        "steps": 2,
        "group_by_length": False,
    },
}


class Place:
    """A base with rows, on which trials run alone or together."""

    def __init__(self, folder: Path, rows: Path, precision: str = "fp32", device: str = "cpu") -> None:
        self.where = {"base": str(folder), "train": str(rows), "device": device, "precision": precision}
        spec = self.spec({})
        self.machine: Machine = choose(device, precision)
        self.task = task_of(spec)
        self.data: Data = rows_of(spec, self.task)
        self.base: Base = load_base(spec, self.machine)

    def spec(self, settings: dict[str, Any]) -> Spec:
        return specs.read(**{"method": "lora", "steps": 4, **self.where, **settings})

    def part(self, spec: Spec) -> Part:
        return part_of(spec, self.task, self.data.train, self.data.names, self.base)

    def alone(self, settings: dict[str, Any], *, steps: int | None = None) -> tuple[list[Step], Any]:
        """The ordinary run: its own base, peft's layers, the loop."""
        spec = self.spec(settings)
        base, part = load_base(spec, self.machine), self.part(spec)
        made = ready(spec, self.task, self.data.names, base, self.machine, None)
        last = n_steps(spec, len(part.rows))
        found = train_steps(
            made.model,
            stream(spec, self.task, part),
            self.task.loss,
            optim.optimizer(made.model, spec.train, made.lr),
            optim.schedule(spec.train, last),
            steps=steps or last,
            clip=spec.train.clip,
            seed=spec.seed,
        )
        return list(found), made.model

    def trial(self, name: str, settings: dict[str, Any] | None = None) -> Trial:
        spec = self.spec(MANY[name] if settings is None else settings)
        return trial_of(name, spec, self.task, self.part(spec), self.data.names, self.base, self.machine)[0]


@pytest.fixture
def place(tiny: Tiny, tiny_csv: Path) -> Place:
    return Place(tiny("bert"), tiny_csv)


def trained(model: Any) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def run(bank: Bank, n: int | None = None) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for steps in itertools.islice(bank.steps(), n):
        for name, step in steps.items():
            found.setdefault(name, []).append(step)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", pytest.param("llama", marks=pytest.mark.slow)])
def test_trials_together_equal_each_alone(family: str, tiny: Tiny, tiny_csv: Path) -> None:
    """Losses, norms and weights, dropout of base, head and adapters included."""
    place = Place(tiny(family), tiny_csv)
    bank = Bank([place.trial(name) for name in MANY])
    together = run(bank)
    for name, settings in MANY.items():
        wanted, model = place.alone(settings)
        assert len(wanted) == len(together[name]) == settings.get("steps", 4)
        for one, other in zip(wanted, together[name], strict=True):
            assert other.loss == pytest.approx(one.loss, abs=1e-5), name
            assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4), name
            assert replace(other, loss=0, grad_norm=0, seconds=0) == replace(
                one, loss=0, grad_norm=0, seconds=0
            )
        own, theirs = trained(bank.trials[name].model), trained(model)
        assert own.keys() == theirs.keys()
        assert max(float((own[n] - theirs[n]).abs().max()) for n in own) < 2e-4, name


@pytest.mark.gpu
def test_on_a_gpu_trials_together_equal_each_alone(tiny: Tiny, tiny_csv: Path) -> None:
    """Without dropout: there its numbers are each trial's own, but not those that torch would draw."""
    place = Place(tiny("bert"), tiny_csv, device="cuda")
    still = {"dropout": 0.0, "task": {"classify": {"head_dropout": 0.0}}}
    together = run(Bank([place.trial(name, {**MANY[name], **still}) for name in "ab"]))
    for name in "ab":
        wanted, _ = place.alone({**MANY[name], **still})
        assert [s.loss for s in together[name]] == pytest.approx([s.loss for s in wanted], abs=1e-4)


@pytest.mark.slow
def test_what_fits_in_one_pass_changes_nothing(place: Place) -> None:
    wanted = run(Bank([place.trial(name) for name in MANY]))
    found = run(Bank([place.trial(name) for name in MANY], tokens=60))
    for name in MANY:
        assert [s.loss for s in found[name]] == pytest.approx([s.loss for s in wanted[name]], abs=1e-5)


def test_a_trial_that_leaves_or_comes_leaves_the_others_bit_equal(place: Place) -> None:
    plain = Bank([place.trial(name) for name in "abc"])
    wanted = run(plain)
    bank = Bank([place.trial("d", {**MANY["d"], "steps": 4}), *(place.trial(name) for name in "abc")])
    found: dict[str, list[Step]] = {}
    for number, steps in enumerate(bank.steps()):
        for name, step in steps.items():
            found.setdefault(name, []).append(step)
        if number == 0:
            gone = bank.drop("d")
        if number == 2:
            bank.add(gone)
    assert len(found.pop("d")) == 4
    for name, steps in found.items():
        assert [s.loss for s in steps] == [s.loss for s in wanted[name]]
        own, theirs = trained(bank.trials[name].model), trained(plain.trials[name].model)
        assert all(torch.equal(own[n], theirs[n]) for n in own)


@pytest.mark.slow
def test_a_trial_that_was_away_goes_on_where_it_was(place: Place) -> None:
    bank = Bank([place.trial("a"), place.trial("c")])
    found = [steps["a"] for steps in itertools.islice(bank.steps(), 2)]
    away = bank.drop("a")
    run(bank, 2)
    bank.add(away)
    found += run(bank)["a"]
    wanted, _ = place.alone(MANY["a"])
    assert [s.loss for s in found] == pytest.approx([s.loss for s in wanted], abs=1e-5)


def test_a_trial_whose_loss_is_not_finite_leaves_alone(place: Place) -> None:
    wanted = run(Bank([place.trial(name) for name in "bc"]))
    sick = place.trial("a")
    next(p for p in sick.model.head.parameters()).data.fill_(float("nan"))
    bank = Bank([sick, place.trial("b"), place.trial("c")])
    down = next(p for n, p in sick.model.named_parameters() if "lora_A" in n)
    down.data.fill_(float("inf"))  # its states are not finite from the first layer on
    found = run(bank)
    assert found.keys() == {"b", "c"}
    for name in "bc":
        assert [s.loss for s in found[name]] == pytest.approx([s.loss for s in wanted[name]], abs=1e-6)
    assert list(bank.failed) == ["a"]
    assert "Lower `train.lr`" in str(bank.failed["a"])


@pytest.mark.parametrize("kind", BY_ELEMENT)
def test_optimizers_by_element_do_not_mind_joined_parameters(kind: Any) -> None:
    def moved(*, join: bool) -> list[Tensor]:
        torch.manual_seed(0)
        pair = Adapter(nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(5, 3)), 1.0, 0.0)
        row, own = Flat({"layer": pair}), [pair.down, pair.up]
        optimizer = kind(row.joined(own) if join else own, lr=0.01, weight_decay=0.1)
        for _ in range(3):
            row.grads.normal_()
            optimizer.step()
        return [p.detach().clone() for p in own]

    for one, other in zip(moved(join=True), moved(join=False), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_each_trial_is_clipped_by_its_own_norm(place: Place) -> None:
    """With one norm for all, a trial with a large gradient would hold the others back."""
    calm = {"lr": 0.1, "optimizer": "sgd", "clip": 0.5, "batch": 8, "steps": 3, "warmup": 0}
    wanted, _ = place.alone(calm)
    wild = place.trial("wild", {**calm, "seed": 4})
    plain = wild.loss
    wild.loss = lambda model, batch: replace(plain(model, batch), mean=1e4 * plain(model, batch).mean)
    found = run(Bank([wild, place.trial("calm", calm)]))
    assert min(s.grad_norm for s in found["wild"]) > 100
    assert [s.loss for s in found["calm"]] == pytest.approx([s.loss for s in wanted], abs=1e-5)


def test_a_step_without_a_target_leaves_a_trial_as_it_was(place: Place) -> None:
    """Alone, no weight has a gradient then, and none moves or decays."""
    trial, other = place.trial("a", {**MANY["a"], "weight_decay": 0.5}), place.trial("b")
    batches = trial.stream
    trial.stream = lambda step: (
        [replace(batch, n_targets=0) for batch in own] if number == 1 else own
        for number, own in enumerate(batches(step), step)
    )
    seen = [trained(trial.model) for _ in itertools.islice(Bank([trial, other]).steps(), 3)]
    assert trial.step == 3
    assert all(torch.equal(seen[1][name], own) for name, own in seen[0].items())
    assert not all(torch.equal(seen[2][name], own) for name, own in seen[0].items())


def test_memory_grows_by_adapters_only(place: Place) -> None:
    """The base lies in memory once; a trial brings its adapter, gradients, two moments and a working copy."""

    def held(n: int) -> tuple[int, int]:
        bank = Bank(
            [place.trial(str(i), {"method": {"lora": {"rank": 4}}, "batch": 2, "seed": i}) for i in range(n)]
        )
        run(bank, 2)
        tensors = [p for t in bank.trials.values() for p in t.model.trunk.parameters()]
        frozen = {p.data_ptr(): p.numel() for p in tensors if not p.requires_grad}
        own = {
            p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() // 4
            for p in tensors
            if p.requires_grad
        }
        states = [s for t in bank.trials.values() for s in t.optimizer.state.values()]
        moments = sum(s[k].numel() for s in states for k in ("exp_avg", "exp_avg_sq"))
        stack = bank._stack
        assert stack is not None
        return sum(frozen.values()), sum(own.values()) + moments + stack.values.numel() + stack.grads.numel()

    base, first = held(1)
    whole, many = held(4)
    adapter = 2 * (4 * 4 * (32 + 32) + 2 * 4 * (32 + 64))
    head = 32 * 32 + 32 + 3 * 32 + 3
    assert base == whole == sum(p.numel() for p in place.base.trunk.parameters())
    assert first == 5 * adapter + 2 * head
    assert many == 4 * first


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_saved_trial_is_the_bundle_of_its_own_run(
    precision: str, tiny: Tiny, tiny_csv: Path, tmp_path: Path
) -> None:
    place = Place(tiny("bert"), tiny_csv, precision)
    spec = place.spec(MANY["a"])
    part = place.part(spec)
    trial, made = trial_of("a", spec, place.task, part, place.data.names, place.base, place.machine)
    bank = Bank([trial, place.trial("b")])
    run(bank)
    card = {**card_of(spec, place.task, place.machine, place.data.names, made), "chosen": {}}
    bank.save("a", tmp_path / "best", base=place.base, card=card)
    _, alone = place.alone(MANY["a"])
    wanted = outputs(alone, part.tokens)
    tolerance = 1e-3 if precision == "fp32" else 0.1 * float(wanted.abs().max())
    opened = bundle.load(tmp_path / "best", device="cpu", precision=precision)
    assert torch.allclose(outputs(opened.model, part.tokens), wanted, atol=tolerance)
    assert torch.equal(outputs(opened.model, part.tokens), outputs(bank.trials["a"].model, part.tokens))


@pytest.mark.slow
def test_a_killed_bank_goes_on_exactly(place: Place) -> None:
    whole = Bank([place.trial(name) for name in MANY])
    wanted = run(whole)
    first = Bank([place.trial(name) for name in MANY])
    begun = run(first, 2)
    state = first.state_dict()
    run(first, 1)  # what comes after the save is lost
    again = Bank([place.trial(name) for name in MANY])
    again.load_state_dict(state)
    rest = run(again)
    for name in MANY:
        assert [s.loss for s in begun[name] + rest.get(name, [])] == [s.loss for s in wanted[name]]
        own, theirs = trained(again.trials[name].model), trained(whole.trials[name].model)
        assert all(torch.equal(own[n], theirs[n]) for n in own)


@pytest.mark.slow
def test_bf16_trials_follow_their_own_runs(tiny: Tiny, tiny_csv: Path) -> None:
    place = Place(tiny("bert"), tiny_csv, "bf16")
    found = run(Bank([place.trial(name) for name in "ab"]))
    for name in "ab":
        wanted, _ = place.alone(MANY[name])
        assert [s.loss for s in found[name]] == pytest.approx([s.loss for s in wanted], abs=0.02)


def test_running_out_of_memory_splits_the_pass(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = run(Bank([place.trial(name) for name in "ab"]), 2)
    bank = Bank([place.trial(name) for name in "ab"])
    plain = bank._shared.states

    def short(stack: Any, members: Any, batches: list[Batch], streams: Any) -> list[Tensor]:
        if sum(b.n_tokens for b in batches) > 100:
            raise torch.OutOfMemoryError("out of memory")
        return plain(stack, members, batches, streams)

    monkeypatch.setattr(bank._shared, "states", short)
    found = run(bank, 2)
    assert "going on with" in found["a"][0].notes[0]
    for name in "ab":
        assert [s.loss for s in found[name]] == pytest.approx([s.loss for s in wanted[name]], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"method": {"lora": {"dora": True}}}, "DoRA"),
        ({"method": "bitfit"}, "no LoRA layers"),
        ({"dropout": 0.5}, "`train.dropout`"),
        ({"checkpointing": True}, "recomputes"),
    ],
)
def test_what_cannot_train_together_is_refused(settings: dict[str, Any], word: str, place: Place) -> None:
    bank = Bank([place.trial("a")])
    with pytest.raises(NotSupported, match=word):
        bank.add(place.trial("other", settings))


def test_another_base_and_a_taken_name_are_refused(place: Place) -> None:
    bank = Bank([place.trial("a")])
    with pytest.raises(NotSupported, match="Drop it first"):
        bank.add(place.trial("a"))
    other = place.trial("b")
    with torch.no_grad():
        frozen = next(p for p in other.model.trunk.parameters() if not p.requires_grad)
        frozen.data = frozen.data + 1
    with pytest.raises(NotSupported, match="one frozen base"):
        bank.add(other)


def test_fp16_is_refused(place: Place) -> None:
    trial = place.trial("a")
    for parameter in trial.model.trunk.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.half()
    with pytest.raises(NotSupported, match="fp16"):
        Bank([trial])


def test_a_base_that_runs_padded_is_refused(tiny: Tiny, tiny_csv: Path) -> None:
    with pytest.raises(NotSupported, match="padded"):
        Bank([Place(tiny("mpnet"), tiny_csv).trial("a")])


def test_a_base_that_draws_behind_our_back_is_refused(place: Place) -> None:
    bank = Bank([place.trial("a")])
    bank._shared.trunk.embeddings.register_forward_hook(
        lambda m, args, out: torch.nn.functional.dropout(out, 0.1)
    )
    with pytest.raises(NotSupported, match="random numbers"):
        run(bank, 1)
