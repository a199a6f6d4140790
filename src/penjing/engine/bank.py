"""Many LoRA trials trained at once over one frozen base.

A trial is what `train_steps` takes. The bank runs the batches of all of them in one packed forward pass and
keeps the rest apart: head, loss and what it is divided by, clipping, optimizer, schedule, random numbers. So
N trials together equal N alone, also where one leaves early or fails.

    bank = Bank([Trial("a", …), Trial("b", …)])
    for steps in bank.steps():                # one update of every trial that is not done
        if steps["a"].loss > 2:
            bank.drop("a")                    # the others do not notice
            bank.add(Trial("c", …))
    bank.save("b", folder, base=base, card=card)

It pays where a trial's batch is small: the base's weights are read once and each operation is called once for
all trials. `Bank` refuses what it cannot run (`models.adapters.why_alone` says why without raising).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penjing import bundle
from penjing.engine.lion import Lion
from penjing.engine.loop import clip_to, norm_of, not_finite, out_of_memory, seed_of
from penjing.engine.optim import set_rates
from penjing.errors import NotSupported, TrainingFailed
from penjing.models.adapters import Adapter, Flat, Stack, twin
from penjing.models.dropout import Stream
from penjing.models.load import Base
from penjing.models.model import Model
from penjing.models.shared import SharedTrunk
from penjing.records import Batch, LossFunction, Step

Pieces = TypeVar("Pieces")  # what a bank takes for one update of a trial
BY_ELEMENT = (torch.optim.AdamW, torch.optim.SGD, Lion)  # optimizers that treat every element by itself


@dataclass
class Trial(Generic[Pieces]):
    """One training among several: the arguments of `train_steps`, and how far it is.

    `stream(step)` gives the micro-batches of update `step`, `step + 1`, … (their rows alone for a
    `HeadBank`). In a `Bank` the model's trunk is a twin of the shared base's (`models.load.twin_of`). `step`
    counts the updates made; a trial that was dropped can be added again and goes on from there.
    """

    name: str
    model: Any  # a Model; its head is all that a HeadBank asks for
    stream: Callable[[int], Iterator[Pieces]]
    loss: LossFunction
    optimizer: Optimizer
    share: Callable[[int], float]
    steps: int
    step: int = 0
    clip: float | None = 1.0
    seed: int = 0
    row: Flat | None = field(default=None, repr=False)  # where its adapters lie, once it has been in a bank


LoraTrial = Trial[list[Batch]]


@dataclass
class _Seat:
    """A trial in the bank."""

    trial: LoraTrial
    adapters: dict[str, Adapter]
    row: Flat
    batches: Iterator[list[Batch]]
    random: Stream
    trained: list[nn.Parameter]  # what its optimizer updates
    others: list[nn.Parameter]  # those of them that lie outside the row: the head's


@dataclass
class _Work:
    """One trial's share of one update."""

    seat: _Seat
    batches: list[Batch]
    lr: float
    losses: list[Tensor] = field(default_factory=list)  # weighted means of the micro-batches
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def n_targets(self) -> float:
        return sum(b.n_targets for b in self.batches)

    def step(self, norm: float, seconds: float, notes: Sequence[str]) -> Step:
        """What the loop alone would have yielded."""
        return Step(
            step=self.seat.trial.step,
            loss=float(sum(self.losses)),
            parts=self.parts,
            lr=self.lr,
            grad_norm=norm,
            n_targets=self.n_targets,
            n_tokens=sum(b.n_tokens for b in self.batches),
            n_rows=sum(len(b.lengths) for b in self.batches),
            seconds=seconds,
            notes=tuple(notes),
        )


class Bank:
    """Trials that share one frozen base. `failed` holds those that left because of an error.

    `tokens`: most tokens in one forward pass over several trials; a memory knob that changes nothing else.

    Raises:
        NotSupported: a trial cannot share the forward pass of the others.
    """

    def __init__(self, trials: Sequence[LoraTrial], *, tokens: int = 8192) -> None:
        assert trials, "a bank begins with at least one trial: the base is that of the first"
        self.tokens = tokens
        self.failed: dict[str, TrainingFailed] = {}
        self._shared = SharedTrunk(trials[0].model)
        if self._shared.dtype == torch.float16:
            raise NotSupported(
                "Trials that train together run in fp32 or bf16; these run in fp16, whose losses are scaled "
                "run by run. Set `precision: bf16`, or run them one after another."
            )
        self._seats: dict[str, _Seat] = {}
        self._sitting: tuple[str, ...] = ()  # whose adapters the stack holds
        self._stack: Stack | None = None
        self._drawn = False  # it was seen that the base draws no random numbers behind the streams' back
        for trial in trials:
            self.add(trial)

    @property
    def trials(self) -> dict[str, LoraTrial]:
        """The trials in the bank by name, done ones included. Each has an ordinary model, to evaluate."""
        return {name: seat.trial for name, seat in self._seats.items()}

    def add(self, trial: LoraTrial) -> None:
        """Take a trial in; it trains from its own step on.

        Raises:
            NotSupported: its name is taken, or it cannot share the forward pass of the others.
        """
        if trial.name in self._seats:
            raise NotSupported(
                f"A trial named `{trial.name}` is in the bank. Drop it first, or give another name."
            )
        adapters = self._shared.join(trial.model)
        own = [p for p in trial.model.parameters() if p.requires_grad]
        theirs = {id(p) for seat in self._seats.values() for p in seat.trial.model.parameters()}
        if any(id(p) in theirs for p in own):
            raise NotSupported(
                f"The trial `{trial.name}` trains a weight that another one holds too. Make each over a twin "
                "of the base of its own (`models.load.twin_of`)."
            )
        if trial.row is None:
            assert not trial.optimizer.state, f"{trial.name} has been trained outside a bank"
            trial.row = Flat(adapters)
            if isinstance(trial.optimizer, BY_ELEMENT):
                for group in trial.optimizer.param_groups:
                    group["params"] = trial.row.joined(group["params"])
        lying = {id(p) for a in adapters.values() for p in (a.down, a.up)}
        self._seats[trial.name] = _Seat(
            trial,
            adapters,
            trial.row,
            trial.stream(trial.step),
            Stream(self._shared.device),
            [p for group in trial.optimizer.param_groups for p in group["params"]],
            [p for p in own if id(p) not in lying],
        )

    def drop(self, name: str) -> LoraTrial:
        """Take a trial out, trained as far as it is."""
        return self._seats.pop(name).trial

    def steps(self) -> Iterator[dict[str, Step]]:
        """Update every trial that is not done, again and again; yields each one's Step by name.

        Trials may be added and dropped between two steps. One whose loss or gradient is not finite is not
        updated: it leaves, and `failed` says why.

        Raises:
            TrainingFailed: memory ran out with the batch of a single trial.
        """
        while live := [seat for seat in self._seats.values() if seat.trial.step < seat.trial.steps]:
            yield self._update(live)

    def _update(self, live: list[_Seat]) -> dict[str, Step]:
        began = time.perf_counter()
        works = [
            _Work(s, next(s.batches), set_rates(s.trial.optimizer, s.trial.share(s.trial.step))) for s in live
        ]
        notes: list[str] = []
        while True:
            try:
                self._gradients(works)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                notes.append(self._halve(works, error))
        norms: list[tuple[_Work, float]] = []
        for work in works:
            trial = work.seat.trial
            norm, loss = norm_of(work.seat.trained), float(sum(work.losses))
            if abs(loss) < float("inf") and norm < float("inf"):
                clip_to(work.seat.trained, norm, trial.clip, trial.optimizer)
                if work.n_targets:  # as alone: without a gradient nothing moves or decays
                    trial.optimizer.step()
                trial.step += 1
                norms.append((work, norm))
            else:
                text = not_finite(trial.step + 1, loss, norm, work.lr, work.batches)
                self.failed[trial.name] = TrainingFailed(text)
                self.drop(trial.name)
        seconds = time.perf_counter() - began
        return {work.seat.trial.name: work.step(norm, seconds, notes) for work, norm in norms}

    def _gradients(self, works: list[_Work]) -> None:
        """Leave each trial's gradients where its optimizer finds them."""
        stack, rows = self._stacked([work.seat for work in works]), [work.seat.row for work in works]
        stack.load(rows)
        stack.grads.zero_()
        for work in works:
            trial = work.seat.trial
            work.seat.random.restart(seed_of(trial.seed, trial.step))
            work.losses, work.parts = [], {}
            trial.model.head.train()
            for parameter in work.seat.others:
                parameter.grad = None
        for number in range(max(len(work.batches) for work in works)):
            for members in self._passes(works, number):
                self._forward(stack, works, members, number)
        stack.unload(rows)

    def _passes(self, works: list[_Work], number: int) -> Iterator[list[int]]:
        """Which trials' micro-batches of that number go together: at most `tokens`, at least one."""
        members: list[int] = []
        n_tokens = 0
        for member, work in enumerate(works):
            if number >= len(work.batches) or not work.batches[number].n_targets:
                continue
            if members and n_tokens + work.batches[number].n_tokens > self.tokens:
                yield members
                members, n_tokens = [], 0
            members.append(member)
            n_tokens += work.batches[number].n_tokens
        if members:
            yield members

    def _forward(self, stack: Stack, works: list[_Work], members: list[int], number: int) -> None:
        """One pass forward and back."""
        device = self._shared.device
        batches = [works[m].batches[number].to(device) for m in members]
        streams = [works[m].seat.random for m in members]
        before = None if self._drawn else _random_state(device)
        states = self._shared.states(stack, members, batches, streams)
        if before is not None:
            _refuse_draws(before, device)
            self._drawn = True
        total = torch.zeros((), device=device)
        for member, batch, own in zip(members, batches, states, strict=True):
            work, weight = works[member], batch.n_targets / works[member].n_targets
            with work.seat.random.as_default():
                found = work.seat.trial.loss(_Fed(work.seat.trial.model, own), batch)
            total = total + found.mean * weight
            work.losses.append(found.mean.detach() * weight)
            for name, value in found.parts.items():
                work.parts[name] = work.parts.get(name, 0.0) + weight * value
        total.backward()

    def _stacked(self, seats: list[_Seat]) -> Stack:
        names = tuple(seat.trial.name for seat in seats)
        if self._stack is None or names != self._sitting:
            self._stack = None  # the old one goes before the new one comes
            self._stack = self._shared.stack([seat.adapters for seat in seats])
            self._sitting = names
        return self._stack

    def _halve(self, works: list[_Work], error: BaseException) -> str:
        """Be content with fewer trials at once."""
        most = max(min(self.tokens, sum(w.batches[0].n_tokens for w in works)), 1)
        largest = max((b for w in works for b in w.batches), key=lambda b: b.n_tokens)
        if most <= largest.n_tokens:
            raise TrainingFailed(
                f"Memory ran out on one trial's {largest.n_tokens} tokens ({str(error)[:120]}). Lower "
                f"`train.micro_tokens` or `train.batch` of the trials, or keep fewer of them in the bank "
                f"({len(works)} are live)."
            ) from error
        self.tokens = max(most // 2, largest.n_tokens)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return f"memory ran out with {most} tokens of all trials at once; going on with {self.tokens}"

    def save(self, name: str, folder: Path, *, base: Base, card: dict[str, Any]) -> None:
        """Write a trial's bundle, the one its run alone would write (`bundle.save`)."""
        model = self._seats[name].trial.model
        plain = Model(twin(model.trunk), model.head, model.way)
        for parameter in plain.trunk.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.detach().contiguous().clone()
        bundle.save(folder, model=plain, base=base, saves="peft", card=card)

    def state_dict(self) -> dict[str, Any]:
        """Steps, weights and optimizer states by trial: what an exact resume needs. Tensors are copies."""
        found = {}
        for name, seat in self._seats.items():
            weights = {
                n: p.detach().clone() for n, p in seat.trial.model.named_parameters() if p.requires_grad
            }
            moments = seat.trial.optimizer.state_dict()["state"]
            copied = {i: {k: _copied(v) for k, v in one.items()} for i, one in moments.items()}
            found[name] = {"step": seat.trial.step, "weights": weights, "optimizer": copied}
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave, for the trials that are in the bank.

        Raises:
            NotSupported: a trial in the bank is not in the state, or trains other weights.
        """
        for name, seat in self._seats.items():
            saved, trial = state.get(name, {"weights": {}}), seat.trial
            own = {n: p for n, p in trial.model.named_parameters() if p.requires_grad}
            shapes = {n: tuple(p.shape) for n, p in own.items()}
            if {n: tuple(t.shape) for n, t in saved["weights"].items()} != shapes:
                raise NotSupported(
                    f"The saved state has {'other weights for' if name in state else 'no'} trial `{name}`. "
                    "Its settings were changed: begin it anew under another name."
                )
            with torch.no_grad():
                for n, parameter in own.items():
                    parameter.copy_(saved["weights"][n])
            trial.model.train()  # drops what was kept of the weights for evaluation
            groups = trial.optimizer.state_dict()["param_groups"]
            moments = {int(i): values for i, values in saved["optimizer"].items()}
            trial.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            trial.step, seat.batches = saved["step"], trial.stream(saved["step"])


class _Fed(nn.Module):
    """A trial's model whose trunk has already run: what its loss is given."""

    def __init__(self, model: Model, states: Tensor) -> None:
        super().__init__()
        self.trunk, self.head, self._states = model.trunk, model.head, states

    def states(self, batch: Batch) -> Tensor:
        """Last hidden states of the batch, (T, D)."""
        return self._states

    def forward(self, batch: Batch) -> Any:
        return self.head(self._states, batch.lengths)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _random_state(device: torch.device) -> list[Tensor]:
    """Where torch's own generators are."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _refuse_draws(before: list[Tensor], device: torch.device) -> None:
    """A base that draws from torch's own generators would make a trial depend on its company."""
    if not all(map(torch.equal, before, _random_state(device))):
        raise NotSupported(
            "This base draws random numbers that the bank cannot give each trial for itself (dropout that is "
            "no module of its own). Set `train.dropout: 0`, or run the trials one after another."
        )
