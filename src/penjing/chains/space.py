"""Spaces: values of a spec that are to be found out, such as `lr: {log: [1e-5, 1e-3]}`.

A space is a mapping with one of these keys, anywhere in a spec:

    {linear: [0, 0.3]}        a number, all equally likely
    {log: [1e-5, 1e-3]}       a number, all orders of magnitude equally likely
    {int: [1, 4]}             a whole number, both ends included; {log_int: [4, 64]} by order of magnitude
    {choose: [lora, bitfit]}  one of the options, which may hold spaces of their own

`filled(values, ask)` is the only walker: whoever answers `ask` draws at random, goes through a grid, asks a
sampler, or tries the ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penjing.errors import SpecError

RANGES = ("linear", "log", "int", "log_int")
Settings = dict[str, Any]  # what was drawn: a number, or the name of an option, by dotted key


@dataclass(frozen=True)
class Axis:
    """One thing to find out: its dotted place in the spec, and its range or the names of its options."""

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    options: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """True where values are whole numbers."""
        return self.kind in ("int", "log_int")

    @property
    def ends(self) -> tuple[Any, ...]:
        """What must be valid for all that lies between to be: both ends of a range, every option."""
        return self.options or (self.value(self.low), self.value(self.high))

    def value(self, raw: float) -> float:
        """A number of the range, with four digits that count, so that a spec can be read."""
        kept = min(max(raw, self.low), self.high)
        return round(kept) if self.whole else min(max(float(f"{kept:.4g}"), self.low), self.high)


def filled(values: Any, ask: Callable[[Axis], Any], key: str = "") -> Any:
    """The values with `ask(axis)` in place of each space; axes come in the order of the file.

    Raises:
        SpecError: a space is written wrongly.
    """
    if isinstance(values, list):
        return [filled(value, ask, f"{key}.{i + 1}") for i, value in enumerate(values)]
    if not isinstance(values, dict):
        return values
    axis = _axis(values, key)
    if axis is None:
        return {k: filled(value, ask, f"{key}.{k}" if key else str(k)) for k, value in values.items()}
    answer = ask(axis)
    if axis.kind != "choose":
        return answer
    option = values["choose"][axis.options.index(answer)]
    # Of two options of one name, such as lora twice, each has axes of its own.
    inner = key if answer == _name(option) else f"{key}[{answer}]"
    return filled(option, ask, inner)


def corners(values: Any) -> Iterator[tuple[Settings, Any]]:
    """(settings, filled values) of one spec for every end of every axis, the others at their first.

    The first has every axis at its first end. A space of one point has one corner.
    """
    seen: set[str] = set()
    waiting: list[Settings] = [{}]
    while waiting:
        fixed = waiting.pop(0)
        asked: list[Axis] = []

        def ask(axis: Axis, fixed: Settings = fixed, asked: list[Axis] = asked) -> Any:
            asked.append(axis)
            return fixed.get(axis.key, axis.ends[0])

        whole = filled(values, ask)
        yield {axis.key: fixed.get(axis.key, axis.ends[0]) for axis in asked}, whole
        for axis in asked:
            if axis.key not in seen:
                seen.add(axis.key)
                before = {a.key: fixed[a.key] for a in asked if a.key in fixed}
                waiting += [{**before, axis.key: end} for end in axis.ends[1:]]


def axes(values: Any, settings: Settings) -> list[Axis]:
    """The axes that these settings answer."""
    asked: list[Axis] = []

    def ask(axis: Axis) -> Any:
        asked.append(axis)
        return settings[axis.key]

    filled(values, ask)
    return asked


def _axis(values: dict[Any, Any], key: str) -> Axis | None:
    kind = next(iter(values)) if len(values) == 1 else None
    if kind == "choose":
        return Axis(key, kind, options=_options(values[kind], key))
    if kind not in RANGES:
        return None
    ends = values[kind]
    try:
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"`{key}: {{{kind}: …}}` takes two numbers, lowest and highest; it holds {ends!r}. Write "
            f"`{{{kind}: [{'4, 64' if 'int' in kind else '1e-5, 1e-3'}]}}`."
        ) from error
    wrong = ""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        wrong = "the lowest must come first and lie below the highest"
    elif "log" in kind and low <= 0:
        wrong = "a logarithm needs numbers above 0"
    elif "int" in kind and not (low.is_integer() and high.is_integer()):
        wrong = "both must be whole numbers"
    if wrong:
        raise SpecError(f"`{key}: {{{kind}: {ends}}}`: {wrong}. Change the range, or write one plain value.")
    return Axis(key, kind, low, high)


def _options(given: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(given, list) or not given:
        raise SpecError(
            f"`{key}: {{choose: …}}` takes a list of options; it holds {given!r}. Write "
            f"`{{choose: [first, second]}}`."
        )
    plain = [_name(one) for one in given]
    names = [_whole_name(one) if plain.count(_name(one)) > 1 else _name(one) for one in given]
    order = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return tuple(
        name if names.count(name) == 1 else f"{name}#{nth}" for name, nth in zip(names, order, strict=True)
    )


def _name(option: Any) -> Any:
    """A plain value names itself, `{lora: {…}}` is called lora, anything else as it is written."""
    if isinstance(option, dict) and len(option) == 1:
        return str(next(iter(option)))
    return option if isinstance(option, str | int | float) else str(option)


def _whole_name(option: Any) -> Any:
    """A name that tells options of one name apart by what is written in them, as `top(layers=1)`."""
    name = _name(option)
    settings = option.get(name) if isinstance(option, dict) else None
    given = settings if isinstance(settings, dict) else {}
    told = ", ".join(f"{key}={value}" for key, value in given.items() if not isinstance(value, dict))
    return f"{name}({told})" if told else name
