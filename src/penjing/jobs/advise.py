"""Which base, method, batch and steps for so many rows and minutes here; what loss a pretraining can reach.

A question is answered from shapes, formulas and the machine's pace: no weight is loaded and no row is read.
Fine-tuning is asked by rows, pretraining by the tokens of a corpus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from penjing import plugin
from penjing.device import Machine, choose, free_mib
from penjing.errors import SpecError, WontFit
from penjing.jobs.prepare import span, steps_of
from penjing.keys import TrainSpec
from penjing.models.calibrate import pace_of
from penjing.models.heads import ClassHead
from penjing.models.laws import CHINCHILLA, DATA_CONSTRAINED
from penjing.models.model import Model
from penjing.models.packing import Way
from penjing.models.sizing import MARGIN_MIB, MARGIN_S, Pace, Work, count, forecast
from penjing.plural import counted

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
TO_TUNE = ("bert-tiny", "bert-mini", "minilm", "bert-small", "bert-medium", "bert-base")
# As a spec spells them, from the one that trains most.
METHODS: tuple[Any, ...] = ("full", "lora", {"top": {"layers": 2}}, "top")
TO_GROW = {
    "masked": ("bert-tiny", "bert-mini", "ettin-17m", "ettin-32m", "ettin-68m", "modernbert-base"),
    "causal": ("gpt-micro", "llama-mini", "llama-small", "llama-base", "smollm2-135m"),
}
FEW_ROWS = 200  # below, a whole base is seldom tuned well; few-shot methods are
SHORTENED = 4  # times that steps are cut to the time: a layer run once does not get cheaper
MASKED_SHARE = 0.15  # of the tokens are predicted
TOKENS_A_STEP = 2048  # of pretraining: 16 pieces of 128, as the objectives take them


@dataclass(frozen=True)
class Option:
    """A base and a method, as a spec spells it; `most_s` and `most_mib` should not be passed."""

    base: str
    method: Any
    parameters: int
    trainable: int
    batch: int
    steps: int
    passes: float
    seconds: float
    most_s: float
    mib: float
    most_mib: float
    fits: bool


@dataclass(frozen=True)
class Growth:
    """A size to pretrain, and the loss (nats a token) that scaling laws let expect of it in the time; above
    `chance`, the loss of a guess, they say nothing but which size is better.
    """

    base: str
    parameters: int
    tokens: float
    passes: float
    loss: float
    chance: float
    seconds: float
    mib: float
    most_mib: float
    fits: bool


@dataclass(frozen=True)
class Advice:
    """The answer to a question: what to take (first of `options` or `growths` that fits, best first), why,
    and what to know.
    """

    machine: str
    free_mib: float
    minutes: float | None
    options: tuple[Option, ...]
    growths: tuple[Growth, ...]
    take: str | None
    why: tuple[str, ...]
    spec: dict[str, Any] | None

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def refuse(self) -> None:
        """Raise where nothing fits.

        Raises:
            WontFit: with what comes nearest.
        """
        if self.take is not None:
            return
        tried: Sequence[Option | Growth] = self.options or self.growths
        least = min(tried, key=lambda one: (one.seconds, one.mib))
        limit = "" if self.minutes is None else f" and {self.minutes:g} minutes"
        raise WontFit(
            f"Nothing fits {self.machine} with {self.free_mib:,.0f} MiB free{limit}: the least, "
            f"`{least.base}`, takes up to {least.most_mib:,.0f} MiB and about {span(least.seconds)}. Give "
            f"more time or memory, or fewer or shorter rows."
        )


def advise(
    *,
    rows: int | None = None,
    tokens: float = 32.0,
    labels: int = 10,
    minutes: float | None = None,
    corpus_tokens: float | None = None,
    objective: str = "masked",
    device: str = "auto",
    precision: str = "auto",
    memory_gib: float | None = None,
) -> Advice:
    """What to tune on `rows` rows of `tokens` tokens, or to pretrain on `corpus_tokens` unique tokens.

    Raises:
        SpecError: neither or both were given, or a number is out of range.
    """
    _refuse(rows, tokens, minutes, corpus_tokens, objective)
    machine = choose(device, precision)
    free = free_mib(machine.device) if memory_gib is None else 1024 * memory_gib
    place = f"{machine.device}, {machine.precision}, {counted(machine.threads, 'thread')}"
    pace = pace_of(machine)
    if corpus_tokens is not None:
        assert minutes is not None
        growths = _growths(corpus_tokens, minutes, objective, machine, pace, free)
        return _grow(growths, place, free, minutes, corpus_tokens)
    assert rows is not None
    options = _options(rows, tokens, labels, minutes, machine, pace, free)
    return _tune(options, place, free, minutes, rows, labels)


def said_of(method: Any) -> str:
    """`lora`; `top, layers 2`."""
    if isinstance(method, str):
        return method
    name, settings = next(iter(method.items()))
    return ", ".join([name, *(f"{key} {value}" for key, value in settings.items())])


def _refuse(
    rows: int | None, tokens: float, minutes: float | None, corpus_tokens: float | None, objective: str
) -> None:
    if (rows is None) == (corpus_tokens is None):
        raise SpecError(
            f"A plan is for labelled rows or for a corpus; `rows` is {rows} and `corpus_tokens` is "
            f"{corpus_tokens}. Give one: `--rows 20000 --tokens 30`, or `--corpus-tokens 5e7`."
        )
    if corpus_tokens is not None and minutes is None:
        raise SpecError(
            "A pretraining goes on as long as it is let; `minutes` is not given. Say `--minutes 60`."
        )
    if objective not in TO_GROW:
        raise SpecError(f"`objective` must be one of {', '.join(TO_GROW)}; it is {objective!r}.")
    given = {"rows": rows, "tokens": tokens, "minutes": minutes, "corpus_tokens": corpus_tokens}
    for key, value in given.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SpecError(f"`{key}` must be above 0; it is {value:g}. Give what you have.")


def _model(name: str, machine: Machine, labels: int) -> Model:
    """A trunk without weights and a head."""
    from penjing.models.grow import config_of, fresh

    config = config_of("bert-mini", shape=MINILM) if name == "minilm" else config_of(name)
    with torch.device("meta"):
        trunk = fresh(config, 0)
        head = ClassHead(int(config.hidden_size), labels, pooling="mean", dropout=0.1)
    return Model(trunk, head, Way(True))


def _options(
    rows: int, tokens: float, labels: int, minutes: float | None, machine: Machine, pace: Pace, free: float
) -> tuple[Option, ...]:
    found = []
    usual = TrainSpec()
    a_pass, steps = math.ceil(rows / usual.batch), steps_of(usual, rows)
    for name in TO_TUNE:
        for method in METHODS:
            model = _model(name, machine, labels)
            picked = plugin.choice(method, kind="methods", key="method")
            model.trunk = plugin.build("methods", picked).apply(model.trunk)
            model.precision = machine.precision
            make = partial(
                _option,
                name,
                method,
                model,
                usual.batch,
                rows=rows,
                tokens=tokens,
                machine=machine,
                pace=pace,
            )
            option = make(steps, steps / a_pass)
            for _ in range(SHORTENED if minutes is not None else 0):
                fewer = math.floor(option.steps * 60 * (minutes or 0) / option.most_s)
                if fewer >= option.steps or fewer < a_pass:  # a whole pass at least
                    break
                option = make(fewer, fewer / a_pass)
            late = minutes is not None and option.most_s > 60 * minutes
            found.append(replace(option, fits=option.most_mib <= free and not late))
    return tuple(found)


def _option(
    name: str,
    method: Any,
    model: Model,
    batch: int,
    steps: int,
    passes: float,
    *,
    rows: int,
    tokens: float,
    machine: Machine,
    pace: Pace,
) -> Option:
    long = 1.5 * tokens  # rows of a batch of long ones
    limit = 8192
    work = Work(steps, tokens * batch, long, limit, min(long * batch, limit), min(limit, tokens * rows))
    cpu = machine.device.type == "cpu"
    found = forecast(model, work, pace=pace, precision=machine.precision, passes=passes, cpu=cpu)
    weights = 4 * found.parameters / 2**20
    return Option(
        name,
        method,
        found.parameters,
        found.trainable,
        batch,
        steps,
        passes,
        found.seconds,
        found.seconds * MARGIN_S,
        weights + found.mib,
        weights + found.mib * MARGIN_MIB,
        False,
    )


def _tune(
    options: tuple[Option, ...], place: str, free: float, minutes: float | None, rows: int, labels: int
) -> Advice:
    """The rule: weights that know the language beat size, and what trains more beats what trains less."""
    fitting = [one for one in options if one.fits and one.base == "minilm"] or [
        one for one in options if one.fits
    ]
    take = fitting[0] if fitting else None
    why = [
        "bases other than minilm stand for checkpoints of that shape: give a folder or hub name, as random "
        "weights have learned nothing"
    ]
    if rows < FEW_ROWS or rows < 10 * labels:
        why.append(f"{rows:,} rows of {labels} labels are few: try `--task few_shot` beside this")
    larger = [one for one in options if one.fits and take and one.parameters > 1.2 * take.parameters]
    if larger:
        best = max(larger, key=lambda one: (one.parameters, one.trainable))
        why.append(f"room is left for a checkpoint like {best.base} with {said_of(best.method)}")
    if take is not None and take.passes < 3:
        why.append(f"the time is enough for {take.passes:.1f} passes over the rows; 3 to 5 are usual")
    spec = None
    if take is not None:
        spec = {"base": take.base, "method": take.method, "train": {"batch": take.batch, "steps": take.steps}}
    said = None if take is None else f"{take.base} with {said_of(take.method)}"
    return Advice(place, free, minutes, options, (), said, tuple(why), spec)


def _growths(
    unique: float, minutes: float, objective: str, machine: Machine, pace: Pace, free: float
) -> tuple[Growth, ...]:
    found = []
    for name in TO_GROW[objective]:
        model = _model(name, machine, 2)
        parameters, _ = count(model)
        config: Any = model.trunk.config
        words, width = int(config.vocab_size), int(config.hidden_size)
        context = 128.0
        work = Work(1, TOKENS_A_STEP, context, 8192, TOKENS_A_STEP, TOKENS_A_STEP)
        step = forecast(model, work, pace=pace, precision=machine.precision, cpu=machine.device.type == "cpu")
        predicted = TOKENS_A_STEP * (1.0 if objective == "causal" else MASKED_SHARE)
        head_s = 6.0 * words * width * predicted / pace.at(width).flops_a_s
        # scores of a piece of 1,024 predictions, in fp32, with their gradient
        mib = step.mib + 2 * 4 * words * min(predicted, 1024) / 2**20
        a_step = step.seconds + head_s
        steps = 60 * minutes / a_step
        tokens = steps * TOKENS_A_STEP
        weights = 4 * parameters / 2**20
        most = weights + mib * MARGIN_MIB
        found.append(
            Growth(
                base=name,
                parameters=parameters,
                tokens=tokens,
                passes=tokens / unique,
                loss=DATA_CONSTRAINED.loss(parameters, tokens, unique),
                chance=math.log(words),
                seconds=60 * minutes,
                mib=weights + mib,
                most_mib=most,
                fits=most <= free and steps >= 1,
            )
        )
    return tuple(found)


def _grow(growths: tuple[Growth, ...], place: str, free: float, minutes: float, unique: float) -> Advice:
    fitting = sorted((one for one in growths if one.fits), key=lambda one: one.loss)
    if not fitting:
        return Advice(place, free, minutes, (), growths, None, (), None)
    best = fitting[0]
    flops = 6.0 * best.parameters * best.tokens
    size, tokens = CHINCHILLA.balanced(flops)
    why = [
        f"{flops:.1e} operations are best spent on {size:,.0f} parameters and {tokens:,.0f} tokens "
        "(Chinchilla as fitted by Besiroglu et al.)",
        _short(best, size, unique),
        "the laws were fitted to decoders of 44 M parameters and more on English web text: between sizes "
        "they tell which is better, the figure itself is for that text and a vocabulary of 32,000",
    ]
    spec = {"base": best.base, "train": {"minutes": minutes}}
    return Advice(place, free, minutes, (), growths, best.base, tuple(why), spec)


def _short(best: Growth, size: float, unique: float) -> str:
    """Whether data, size or time is what holds the loss up."""
    new = DATA_CONSTRAINED.loss(best.parameters, best.tokens)
    if best.passes > 4:
        gain = best.loss - new
        return (
            f"data is short: the time makes {best.passes:.1f} passes over {unique:,.0f} tokens, and from the "
            f"fourth on each is worth less; as many new tokens would bring the loss to {new:.2f} "
            f"({gain:.2f} lower)"
        )
    if best.parameters > 2 * size:
        return f"time is short: in it, a base of {size:,.0f} parameters would learn more a second"
    if best.parameters < size / 2:
        return f"size is short: a larger base, up to {size:,.0f} parameters, would use the time better"
    return "size, data and time go together"
