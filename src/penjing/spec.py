"""What was asked for: one validated, frozen record, from YAML, keyword arguments or `--set key=value`.

All three go through `read`, so all three have the same keys, checks and messages. Every default has its home here or in
a plug-in's signature, and `Spec.written()` gives the file that repeats the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penjing.errors import SpecError, nearest
from penjing.plugin import Choice, choice

FILE_KEYS = ("train", "valid", "test")


_STRICT = ConfigDict(extra="forbid", frozen=True)


class DataSpec(BaseModel):
    """Where the rows are and how to read them."""

    model_config = _STRICT

    train: str | list[str] | None = Field(
        None, description="file, folder, glob or list of them; `hf:name` for a hub set"
    )
    valid: str | list[str] | None = Field(None, description="validation rows; cut from train when not given")
    test: str | list[str] | None = Field(None, description="test rows, used once, at the end")
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="share of train kept for validation when `valid` is not given"
    )
    text: str | None = Field(None, description="column of the text; guessed and told when not given")
    label: str | None = Field(None, description="column of the label; guessed and told when not given")
    encoding: str | None = Field(None, description="such as gb18030; found out when not given")
    delimiter: str | None = Field(
        None, description="between labels of one cell (multi-label); found out when not given"
    )
    drop_empty: bool = Field(False, description="leave out rows without text or label, and count them")
    max_length: int | None = Field(
        None, ge=4, description="tokens a row; the base's own limit, at most 512, when not given"
    )
    cache: bool = Field(True, description="keep tokenized rows in the cache folder")


class TrainSpec(BaseModel):
    """How to train. One clock: optimizer steps; `epochs` are turned into steps once, at the door."""

    model_config = _STRICT

    epochs: float | None = Field(
        None,
        gt=0,
        description="passes over the train rows; enough for 400 steps, 5 to 20, when neither is given",
    )
    steps: int | None = Field(None, ge=1, description="optimizer steps; excludes epochs")
    batch: int = Field(32, ge=1, description="rows an optimizer step")
    micro_tokens: int = Field(
        8192, ge=16, description="most tokens at once; a memory knob that changes nothing else"
    )
    lr: float | None = Field(None, gt=0, description="peak learning rate; the method's own when not given")
    head_lr: float | None = Field(
        None, gt=0, description="peak learning rate of the task's head; `lr` when not given"
    )
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(0.01, ge=0, description="not on biases and norms")
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    warmup: float = Field(0.1, ge=0, description="share of the steps when below 1, else steps")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of each lower layer relative to the one above"
    )
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm")
    checkpointing: bool = Field(
        False, description="recompute activations in backward: less memory, a third more time"
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="replaces the base's dropout; its own when not given"
    )
    evals: int = Field(
        10, ge=0, description="validations over the run, spread evenly; 0 for none but the last"
    )
    patience: int | None = Field(
        None, ge=1, description="validations without a better score before stopping early"
    )
    minutes: float | None = Field(None, gt=0, description="stop after this many minutes, keeping the best")
    group_by_length: bool = True
    save_s: float = Field(60.0, ge=0, description="seconds between saves of what an exact resume needs")


class Spec(BaseModel):
    """A whole job. Made by `read(path_or_mapping, sets=..., **keywords)` below, never by hand."""

    model_config = _STRICT

    base: str = Field("minilm", description="preset, local folder or hub name")
    task: Choice = Field(default_factory=lambda: Choice("classify", {}))
    method: Choice = Field(default_factory=lambda: Choice("full", {}))
    techniques: tuple[Choice, ...] = ()
    data: DataSpec = Field(default_factory=lambda: DataSpec())  # type: ignore[call-arg]
    train: TrainSpec = Field(default_factory=lambda: TrainSpec())  # type: ignore[call-arg]
    seed: int = Field(0, ge=0)
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto takes bf16 where this machine gains from it"
    )
    out: str = Field("runs", description="folder that holds the runs")
    name: str | None = Field(None, description="name of the run's folder; time and task when not given")
    language: Literal["en", "zh"] = Field("en", description="of the report")

    def written(self) -> dict[str, Any]:
        """The spec as plain values, every default written out: the file that repeats the run."""
        plain = self.model_dump(mode="json", exclude={"task", "method", "techniques"})
        return {
            "base": plain.pop("base"),
            "task": self.task.written(),
            "method": self.method.written(),
            "techniques": [t.written() for t in self.techniques],
            **plain,
        }


def read(
    source: str | Path | Mapping[str, Any] | Spec | None = None, *, sets: Iterable[str] = (), **keywords: Any
) -> Spec:
    """A validated Spec from a YAML file or mapping, then `--set` pairs, then keywords, later ones winning.

    Keywords may name a section's key directly where it is unique: `lr=1e-4` is `train.lr`, `text="body"` is `data.text`;
    `train="a.csv"`, `valid=` and `test=` are files. Relative paths in a YAML file are relative to the present folder.

    Raises:
        SpecError: the file is missing or not YAML, a key is unknown, a value has the wrong type or range, or settings
            contradict each other.
    """
    given = _from_source(source)
    for pair in sets:
        _put(given, *_split_pair(pair))
    for key, value in keywords.items():
        if value is not None:
            _put(given, _full_key(key, value), value)
    return _validated(given)


def _from_source(source: str | Path | Mapping[str, Any] | Spec | None) -> dict[str, Any]:
    import copy

    if source is None:
        return {}
    if isinstance(source, Spec):
        return source.written()
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source))
    import yaml

    path = Path(source)
    if not path.is_file():
        near = nearest(
            path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        )
        raise SpecError(
            f"A spec file was wanted at {path}; there is none.{near} "
            f"`penjing tune --base minilm --train rows.csv --task classify` works without a file."
        )
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not readable as YAML: {error}. Mend that line and try again.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(
            f"{path} must hold `key: value` lines; its top is a {type(value).__name__}. See `penjing tune --help`."
        )
    return value


def _split_pair(pair: str) -> tuple[str, Any]:
    import yaml

    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"`--set` takes key=value, such as train.lr=1e-4; it got `{pair}`.")
    return key.strip(), _number(yaml.safe_load(text) if text else None)


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as a string; take it for the number that the user meant."""
    if isinstance(value, str):
        try:
            return (
                float(value)
                if any(c.isdigit() for c in value) and set(value) <= set("0123456789.eE+-")
                else value
            )
        except ValueError:
            return value
    return value


def _full_key(key: str, value: Any) -> str:
    if key in FILE_KEYS and not isinstance(value, Mapping | BaseModel):
        return f"data.{key}"
    if key in Spec.model_fields or "." in key:
        return key
    for section, model in (("train", TrainSpec), ("data", DataSpec)):
        if key in model.model_fields:
            return f"{section}.{key}"
    return key


def _put(given: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list | tuple) and all(isinstance(v, Path) for v in value):
        value = [str(v) for v in value]
    parts = key.split(".")
    if parts[0] in ("task", "method") and len(parts) > 1:  # method.lora.rank=8 or method.rank=8 over a name
        here = given.get(parts[0])
        named = dict(here.settings) if isinstance(here, Choice) else {}
        if isinstance(here, str | Choice):
            given[parts[0]] = {here if isinstance(here, str) else here.name: named}
        elif here is None:
            given[parts[0]] = {parts[1]: {}}
        if parts[1] not in given[parts[0]] and len(parts) == 2:
            parts.insert(1, next(iter(given[parts[0]])))
    place = given
    for part in parts[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            if inner is not None:
                raise SpecError(f"`{key}` cannot be set: `{part}` holds {inner!r}, not a section of keys.")
            inner = place[part] = {}
        place = inner
    place[parts[-1]] = value


def _validated(given: dict[str, Any]) -> Spec:
    values = dict(given)
    for key in values:
        if key not in Spec.model_fields:
            known = [
                *Spec.model_fields,
                *(f"train.{k}" for k in TrainSpec.model_fields),
                *(f"data.{k}" for k in DataSpec.model_fields),
            ]
            inner = next((k for k in known if k.endswith(f".{key}")), "")
            near = f" Did you mean `{inner}`?" if inner else nearest(key, known)
            raise SpecError(
                f"`{key}` is not a key of a spec.{near} Its keys: {', '.join(Spec.model_fields)}."
            )
    for name, model in (("train", TrainSpec), ("data", DataSpec)):
        section = values.get(name)
        if name in values and section is None:
            values[name] = {}
        elif section is not None and not isinstance(section, dict):
            hint = " Files belong under `data: {train: …}`." if name == "train" else ""
            raise SpecError(
                f"`{name}` must hold keys such as {', '.join(list(model.model_fields)[:4])}; it is {section!r}.{hint}"
            )
        for key in values.get(name) or {}:
            if key not in model.model_fields:
                other = DataSpec if name == "train" else TrainSpec
                near = (
                    f" Did you mean `{'data' if name == 'train' else 'train'}.{key}`?"
                    if key in other.model_fields
                    else nearest(key, model.model_fields)
                )
                raise SpecError(
                    f"`{name}.{key}` is not a key of a spec.{near} Keys of `{name}`: {', '.join(model.model_fields)}."
                )
        if isinstance(values.get(name), dict):
            values[name] = {k: _number(v) for k, v in values[name].items()}
    for key, kind in (("task", "tasks"), ("method", "methods")):
        if values.get(key) is not None:
            values[key] = choice(values[key], kind=kind, key=key)
        else:
            values.pop(key, None)
    techniques = values.get("techniques") or []
    if not isinstance(techniques, list | tuple):
        raise SpecError(f"`techniques` must be a list such as [ema]; it is {techniques!r}.")
    values["techniques"] = tuple(choice(t, kind="techniques", key="techniques") for t in techniques)
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"] if not str(p).startswith(("str", "list", "float", "int")))
        raise SpecError(
            f"`{key}`: {first['msg']}; it is {first.get('input')!r}. Change it in the spec or with `--set {key}=…`."
        ) from error
    if spec.train.epochs is not None and spec.train.steps is not None:
        raise SpecError(
            f"`train.epochs` ({spec.train.epochs:g}) and `train.steps` ({spec.train.steps}) are both given; "
            f"they say the same thing twice. Keep one."
        )
    return spec
