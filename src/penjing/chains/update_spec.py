"""What an update was asked for: one YAML file that is read again in every round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from penjing.errors import SpecError, nearest
from penjing.keys import STRICT
from penjing.yaml_file import read_yaml

Share = Annotated[float, Field(ge=0, le=1)]


class Gate(BaseModel):
    """What a new model must be to go live. Differences are of the task's own score, paired: the same rows by
    both models."""

    model_config = STRICT

    better_by: Share = Field(0.0, description="least gain on new test rows; the 95 % interval is above it")
    at_least: Share | None = Field(None, description="least share right of the new test rows; null: any")
    below_old_by: Share | None = Field(
        0.1, description="most that the share right of new test rows is below that of old ones; null: any"
    )
    worse_by: Share = Field(0.01, description="most that may be lost on the old test rows")
    must_pass: Share = Field(1.0, description="least share right of the rows that must pass")
    slower_by: Annotated[float, Field(ge=0)] = Field(
        0.5, description="most that an answer may take longer, as a share of the live model's time"
    )
    slice_worse_by: Share = Field(0.03, description="most that any slice may lose")
    gap_wider_by: Share = Field(0.03, description="most that the best and worst slice may draw apart")
    suspects: Share | None = Field(
        0.1,
        description="most that likely wrong labels are a greater share of new rows than of old; null: any",
    )


class Update(BaseModel):
    """An update: the model, where new rows come from, what must not be lost, and the gate."""

    model_config = STRICT

    model: str = Field(min_length=1, description="the model's folder in a registry; its live version learns")
    old: str | list[str] = Field(description="rows that the first live version learned from")
    test: str | list[str] = Field(description="rows that it was tested on, never learned")
    traffic: str | None = Field(None, description="store of requests; those with feedback are new rows")
    new: str | list[str] | None = Field(None, description="files of new rows; with traffic, beside it")
    must_pass: str | list[str] | None = Field(None, description="rows that must be answered rightly, always")
    slices: dict[str, str] = Field({}, description="name: file of labelled rows; for fairness")
    text: str | None = Field(None, description="column of the text of these files; found when not given")
    label: str | None = Field(None, description="column of the label; found when not given")
    out: str = Field("updates", min_length=1, description="folder of the rounds and their history")
    base: str | None = Field(None, description="where the model's base is, if it has moved")
    least_new: int = Field(50, ge=10, description="new rows below which no round begins")
    test_share: float = Field(0.2, gt=0, lt=1, description="of the new rows, kept to test with")
    replay: float = Field(4.0, ge=0, description="old rows learned again beside each new one")
    least_replay: int = Field(5, ge=0, description="of each old label, at least so many")
    train: dict[str, Any] = Field({}, description="keys of a spec's section `train`")
    gate: Gate = Field(Gate(), description="what a new model must be to go live")
    seed: int = Field(0, ge=0, description="of the split, the replay and the training")


def read(source: str | Path | Mapping[str, Any]) -> Update:
    """An update from a YAML file or a mapping. Paths are relative to the present folder.

    Raises:
        SpecError: no such file, an unknown key, a value of the wrong type or range, or no new rows.
    """
    given = dict(source) if isinstance(source, Mapping) else _file(Path(source))
    for name, model in (("", Update), ("gate.", Gate)):
        inner = given if not name else given.get("gate") or {}
        for key in map(str, inner if isinstance(inner, Mapping) else {}):
            if key not in model.model_fields:
                raise SpecError(
                    f"`{name}{key}` is not a key of an update.{nearest(key, model.model_fields)} Its keys: "
                    f"{', '.join(model.model_fields)}."
                )
    try:
        found = Update.model_validate(given)
    except ValidationError as error:
        said = {".".join(map(str, one["loc"])): one for one in error.errors()}
        lines = [f"`{key}`: {one['msg']}; it is {one.get('input')!r}."[:300] for key, one in said.items()]
        raise SpecError(f"{' '.join(lines)} Change it in the update's file.") from error
    if found.traffic is None and found.new is None:
        raise SpecError(
            "An update needs new rows; neither `traffic` (a store of requests) nor `new` (files of rows) "
            "is given. Add one."
        )
    return found


def _file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SpecError(
            f"An update's file was wanted at {path}; there is none. It is YAML with at least `model`, `old`, "
            "`test` and `traffic` or `new`: docs/update.md shows one."
        )
    return read_yaml(path)
