"""What a search was asked for: a spec with spaces in it, and a section `search` that says how to look.

Everything is checked before anything is loaded: the spec at every end of every axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penjing import plugin
from penjing import spec as specs
from penjing.chains.space import Axis, Settings, corners, filled
from penjing.chains.usual import opened
from penjing.errors import NotSupported, SpecError, nearest
from penjing.keys import FILE_KEYS
from penjing.places import anchored
from penjing.spec import Spec
from penjing.tasks_key import spread

# What all trials share; `data` but for `max_length`, too: other rows would be another question.
SHARED = ("task", "data", "device", "precision", "out", "name", "language")


class SearchSpec(BaseModel):
    """How to look for the best settings: the section `search` of a spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    trials: int = Field(32, ge=1, description="most settings to try")
    minutes: float | None = Field(None, gt=0, description="begin nothing that would not end within this time")
    sampler: Literal["random", "tpe", "grid"] = Field(
        "random", description="tpe needs Optuna (`pip install 'penjing[search]'`)"
    )
    folds: int | None = Field(
        None, ge=2, description="cross-validation for small data; the score is the mean"
    )
    reduction: int = Field(4, ge=2, description="η: one of η trials goes on from a rung, η times as far")
    first_share: float = Field(0.0625, gt=0, le=1, description="share of a trial's steps at the first rung")
    at_once: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="trials on their way at a time; auto: as many as gain from training together"
    )
    seeds: int = Field(1, ge=1, description="the winner's settings are trained with so many seeds in all")
    combine: bool = Field(True, description="also try ensembles and soups of the best on the validation rows")


@dataclass(frozen=True)
class Asked:
    """A search, checked: values with spaces, how to look, and the specs at every end of every axis, which
    hold from any folder. `usual`: the space was not written by whoever asked."""

    values: dict[str, Any]
    search: SearchSpec
    ends: tuple[Spec, ...]
    usual: bool = False

    @property
    def first(self) -> Spec:
        """With every axis at its first end: what all trials share is read from it."""
        return self.ends[0]

    def spec(self, settings: Settings) -> Spec:
        """The spec of a trial.

        Raises:
            NotSupported: the settings are those of another space.
        """

        def answer(axis: Axis) -> Any:
            if axis.key not in settings or (axis.options and settings[axis.key] not in axis.options):
                raise NotSupported(
                    f"A trial was begun with {settings or 'no settings'}; the space of its search.yaml now "
                    f"asks for `{axis.key}` otherwise. Put the space back to resume, or start a new search."
                )
            return settings[axis.key]

        return _valid(filled(self.values, answer), settings).anchored()

    def written(self) -> dict[str, Any]:
        """Plain values for a file that repeats the search, with absolute paths."""
        files = self.first.written()["data"]
        data = {**(self.values.get("data") or {}), **{key: files[key] for key in FILE_KEYS}}
        return {**anchored(self.values), "data": data, "search": self.search.model_dump(mode="json")}


def read(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    sets: Iterable[str] = (),
    search: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Asked:
    """Read and check a search; `search` is laid over the section of that name, the rest is as in `spec.read`.
    A spec without a space gets the usual one (`chains/usual.py`).

    Raises:
        SpecError: a space is written wrongly, nothing is left open, a spec at one of its ends is not valid,
            or something that all trials share is to vary.
    """
    values = specs.laid(source, sets=sets, **keywords)
    if values.get("tasks") is not None:
        values = spread(values)  # so that a space in it is refused as one of the task is
    how = _how({**_mapping(values.pop("search", None)), **(search or {})})
    ends = _ends(values)
    usual = len(ends) == 1
    if usual:
        values = opened(values)
        ends = _ends(values)
    if len(ends) == 1:
        raise SpecError(
            "A search needs something to find out; this spec leaves nothing open. Write a space, such as "
            "`train.lr: {log: [1e-5, 1e-3]}` or `method: {choose: [lora, bitfit]}`, or use `penjing tune`."
        )
    return Asked(values, how, ends, usual)


def _ends(values: dict[str, Any]) -> tuple[Spec, ...]:
    """The spec at every end of every axis."""
    found = []
    for settings, whole in corners(values):
        _refuse_shared(settings)
        found.append(_valid(whole, settings).anchored())
    return tuple(found)


def _mapping(given: Any) -> dict[str, Any]:
    if given is not None and not isinstance(given, dict):
        raise SpecError(f"`search` must hold keys such as trials and minutes; it is {given!r}.")
    return dict(given or {})


def _how(given: dict[str, Any]) -> SearchSpec:
    for key in map(str, given):
        if key not in SearchSpec.model_fields:
            raise SpecError(
                f"`search.{key}` is not a key of a search.{nearest(key, SearchSpec.model_fields)} Its keys: "
                f"{', '.join(SearchSpec.model_fields)}."
            )
    try:
        return SearchSpec.model_validate(given)
    except ValidationError as error:
        one = error.errors()[0]
        key = f"search.{one['loc'][0]}"
        raise SpecError(
            f"`{key}`: {one['msg']}; it is {one.get('input')!r}. Change it in the spec, or with "
            f"`--set {key}=…`."
        ) from error


def _valid(whole: Any, settings: Settings) -> Spec:
    """The spec at a point; a complaint says which settings it is about."""
    try:
        spec = specs.read(whole)
        plugin.build("methods", spec.method)
        for technique in spec.techniques:
            plugin.build("techniques", technique)
    except SpecError as error:
        at = ", ".join(f"{key} = {value}" for key, value in settings.items())
        raise SpecError(f"In the space, at {at or 'its only point'}: {error}") from error
    return spec


def _refuse_shared(settings: Settings) -> None:
    for key in settings:
        top = key.partition(".")[0].partition("[")[0]
        if top in SHARED and not key.startswith("data.max_length"):
            raise SpecError(
                f"`{key}` is a space; all trials of a search share it, so that their scores can be compared. "
                f"Give it one value, and search once for each."
            )
