"""What was asked for: one validated, frozen record, from YAML, keyword arguments or `--set key=value`.

All three go through `read`, so all three have the same keys, checks and messages. Every default has its home
here or in a plug-in's signature, and `Spec.written()` gives the file that repeats the run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from penjing.errors import SpecError, nearest
from penjing.keys import FILE_KEYS, SECTIONS, STRICT, DataSpec, TrainSpec, refuse_contradictions
from penjing.places import FOLDERS, files, folder, settled
from penjing.plugin import Choice, advice, choice, found, signature
from penjing.tasks_key import spread
from penjing.yaml_file import read_yaml

CHOICES = {
    "task": ("tasks", "classify"),
    "method": ("methods", "full"),
}  # key: kind, what it is when not given
LISTS = {"techniques": "ema", "trackers": "tensorboard"}  # key and kind: an example


class Spec(BaseModel):
    """A whole job. Made by `read(path_or_mapping, sets=..., **keywords)` below, never by hand."""

    model_config = STRICT

    base: str = Field("minilm", min_length=1, description="preset, local folder or hub name")
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="of a preset to grow: a tokenizer's folder, or a preset that has words",
    )
    shape: dict[str, Any] | None = Field(
        None, min_length=1, description="of a preset to grow: fields of its config, by transformers' names"
    )
    layers: int | list[int] | None = Field(None, description="of a base: how many layers to keep, or which")
    parent: str | None = Field(None, min_length=1, description="run or bundle whose weights it begins with")
    task: Choice = Field(description="what to learn; `penjing list tasks`")
    method: Choice = Field(description="what trains; `penjing list methods`")
    techniques: tuple[Choice, ...] = Field((), description="what changes a training step; a list")
    trackers: tuple[Choice, ...] = Field((), description="where the log goes, too; a list")
    data: DataSpec = Field(description="the keys of `data`, below")
    train: TrainSpec = Field(description="the keys of `train`, below")
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,  # scikit-learn takes no greater one
        description="of the split, the head's start, the order of rows, dropout and intervals",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto takes bf16 where that gains; fp16 is for CUDA"
    )
    out: str = Field("runs", min_length=1, description="folder that holds the runs")
    name: str | None = Field(None, description="name of the run's folder; time and task when not given")
    language: Literal["en", "zh"] = Field("en", description="of the report")

    def written(self) -> dict[str, Any]:
        """The spec as plain values, every default written out: the file that repeats the run."""
        plain = self.model_dump(mode="json", exclude={"task", "method", *LISTS})
        return {
            **{key: plain.pop(key) for key in ("base", "tokenizer", "shape", "layers")},
            "task": self.task.written(),
            "method": self.method.written(),
            **{key: [one.written() for one in getattr(self, key)] for key in LISTS},
            **plain,
        }

    @property
    def origin(self) -> tuple[Any, ...]:
        """What tells the base from that of another spec. Random weights depend on more than a name."""
        kept = () if self.layers is None else (json.dumps(self.layers),)
        if self.tokenizer is None:
            return self.base, *kept
        return self.base, self.tokenizer, json.dumps(self.shape, sort_keys=True), self.seed, *kept

    def anchored(self) -> Spec:
        """The same spec with absolute paths to files and the base, so that it holds from any folder."""
        data = {key: files(getattr(self.data, key)) for key in FILE_KEYS}
        return self.model_copy(
            update={
                **{key: folder(getattr(self, key)) for key in FOLDERS},
                "data": self.data.model_copy(update=data),
                "task": Choice(self.task.name, settled(self.task.settings)),
                "techniques": tuple(Choice(t.name, settled(t.settings)) for t in self.techniques),
            }
        )


def read(
    source: str | Path | Mapping[str, Any] | Spec | None = None, *, sets: Iterable[str] = (), **keywords: Any
) -> Spec:
    """A validated Spec from a YAML file or mapping, over which `--set` pairs and keywords are laid, key by
    key.

    Keywords may name a section's key directly where it is unique: `lr=1e-4` is `train.lr`, `text="body"` is
    `data.text`; `train="a.csv"`, `valid=` and `test=` are files. None is a value: it turns a thing off.
    Relative paths in a YAML file are relative to the present folder.

    Raises:
        SpecError: the file is missing or not YAML, a key is unknown or given twice, a value has the wrong
            type or range, or settings contradict each other.
    """
    return _validated(laid(source, sets=sets, **keywords))


def laid(
    source: str | Path | Mapping[str, Any] | Spec | None = None, *, sets: Iterable[str] = (), **keywords: Any
) -> dict[str, Any]:
    """As `read`, before anything is checked: plain values, in which a chain may find keys of its own.

    Raises:
        SpecError: the file is missing or not YAML, or a key is given twice.
    """
    given = _from_source(source)
    said: dict[str, Any] = {}
    pairs = [_split_pair(pair) for pair in sets]
    for key, value in keywords.items():
        full = _full_key(key, value)
        if full in CHOICES and isinstance(value, str) and value.lstrip()[:1] == "{":
            value = of_yaml(value, f"--{full} {value}")  # --task '{classify: {label_smoothing: 0.1}}'
        inner = value.items() if full in SECTIONS and isinstance(value, Mapping) else None
        pairs += [(full, value)] if inner is None else [(f"{full}.{k}", v) for k, v in inner]
    # `method=lora` before `method.rank=8`, whichever was said first.
    for key, value in sorted(pairs, key=lambda pair: pair[0].count(".")):
        _lay(given, said, key, value)
    return given


def _from_source(source: str | Path | Mapping[str, Any] | Spec | None) -> dict[str, Any]:
    import copy

    if source is None:
        return {}
    if isinstance(source, Spec):
        return copy.deepcopy(source.written())
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source))
    path = Path(source)
    if not path.is_file():
        there = path.parent if path.parent.is_dir() else Path()
        near = nearest(path.name, [p.name for p in there.glob("*.y*ml")])
        if (path / "spec.yaml").is_file():
            near = f" It is a folder; did you mean `{path / 'spec.yaml'}`?"
        raise SpecError(
            f"A spec file was wanted at {path}; there is none.{near} "
            f"`penjing tune --base minilm --train rows.csv --task classify` works without a file."
        )
    return read_yaml(path)


def _split_pair(pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SpecError(f"`--set` takes key=value, such as train.lr=1e-4; it got `{pair}`.")
    if len(text) == 1 and not text.isalnum() and text != "~" and _is_text(key):
        return key, text  # signs such as `|`, `#` or `,`, which YAML takes for something else, or for nothing
    value = of_yaml(text, f"--set {pair}") if text else None
    if not isinstance(value, str | list | dict | None) and _is_text(key):
        return key, text  # name=007 is a name
    return key, value


def of_yaml(text: str, said: str) -> Any:
    """A value of the command line, as YAML; `said` is the option with it.

    Raises:
        SpecError: it is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise SpecError(f"`{said}`: the value is not YAML ({why}). Put quotes around it.") from error


def _field(key: str) -> FieldInfo | None:
    section, _, name = key.rpartition(".")
    model = Spec if not section else SECTIONS.get(section)
    return model.model_fields.get(name) if model else None


def _is_text(key: str) -> bool:
    field = _field(key)
    kinds = get_args(field.annotation) or (field.annotation,) if field else ()
    return str in kinds and not {int, float, bool} & {*kinds}


def _full_key(key: str, value: Any) -> str:
    if key in FILE_KEYS and not isinstance(value, Mapping | BaseModel):
        return f"data.{key}"
    if key in Spec.model_fields or "." in key:
        return key
    for section, model in SECTIONS.items():
        if key in model.model_fields:
            return f"{section}.{key}"
    return key


def _lay(given: dict[str, Any], laid: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key. `laid` is what this call gave so far: saying two things is an error."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list | tuple):
        value = [str(v) if isinstance(v, Path) else v for v in value]
    if key in laid and laid[key] != value:
        raise SpecError(f"`{key}` is given twice: {laid[key]!r} and {value!r}. Keep one.")
    laid[key] = value
    top, *rest = key.split(".")
    if top in CHOICES and rest:
        _lay_setting(given, laid, top, rest, value)
        return
    place = given
    for part in key.split(".")[:-1]:
        inner = place.get(part)
        if inner is None:
            inner = place[part] = {}
        if not isinstance(inner, dict):
            raise SpecError(f"`{key}` cannot be set: `{part}` holds {inner!r}, not a section of keys.")
        place = inner
    place[key.rpartition(".")[2]] = value


def _lay_setting(given: dict[str, Any], laid: dict[str, Any], key: str, rest: list[str], value: Any) -> None:
    """`method.lora.rank`, or `method.rank` of the method so far; naming another plug-in replaces it."""
    kind, default = CHOICES[key]
    now = given.get(key)
    name, settings = now if isinstance(now, str) else default, {}
    if isinstance(now, Choice):
        name, settings = now.name, dict(now.settings)
    elif isinstance(now, dict) and len(now) == 1:
        name, settings = next(iter(now.items()))
        settings = dict(settings or {})
    chosen, path = name, rest
    if rest[0] in found(kind):
        chosen, path = rest[0], rest[1:]
    elif len(rest) > 1 and rest[0] not in signature(kind, name):
        chosen, path = ".".join(rest[:-1]), rest[-1:]
    if chosen != name:
        if key in laid:
            raise SpecError(
                f"`{key}` is given as `{name}`, and `{key}.{'.'.join(rest)}` sets `{chosen}`. Keep one of "
                "the two."
            )
        settings = {}
    place = settings
    for part in path[:-1]:
        inner = place.get(part)
        place[part] = dict(inner) if isinstance(inner, dict) else {}
        place = place[part]
    if path:
        place[path[-1]] = value
    given[key] = {chosen: settings if path else value}


def _validated(given: dict[str, Any]) -> Spec:
    values = spread(given) if given.get("tasks") is not None else dict(given)
    for key in values:
        if key not in Spec.model_fields:
            raise _unknown_key(str(key))
    for name, model in SECTIONS.items():
        values[name] = _section(name, model, values.get(name))
    for key, (kind, default) in CHOICES.items():
        values[key] = choice(default if values.get(key) is None else values[key], kind=kind, key=key)
    values["train"] = _advised(values["train"], values["task"])
    for key, example in LISTS.items():
        asked = values.get(key) or []
        if not isinstance(asked, list | tuple):
            raise SpecError(f"`{key}` must be a list such as [{example}]; it is {asked!r}.")
        values[key] = tuple(choice(one, kind=key, key=key) for one in asked)
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        said: dict[str, str] = {}
        for one in error.errors():
            key = ".".join(str(part) for part in one["loc"][: 2 if one["loc"][0] in SECTIONS else 1])
            said.setdefault(key, f"`{key}`: {one['msg']}; it is {one.get('input')!r}.")
        first = next(iter(said))
        raise SpecError(
            f"{' '.join(said.values())} Change it in the spec or with `--set {first}=…`."
        ) from error
    refuse_contradictions(spec.train, spec.data, task=spec.task.name)
    if spec.name is not None and (not spec.name.strip(". ") or {"/", "\\"} & {*spec.name}):
        raise SpecError(
            f"`name` must be the name of one folder below `out`; it is {spec.name!r}. Give the folder with "
            "`out:`."
        )
    return spec


def _advised(given: dict[str, Any], task: Choice) -> dict[str, Any]:
    """The section `train` with what the task says of keys not given. Steps and epochs are one key."""
    said = advice("tasks", task.name)
    if given.keys() & {"steps", "epochs"}:
        said = {key: value for key, value in said.items() if key not in ("steps", "epochs")}
    return {**said, **given}


def _unknown_key(key: str) -> SpecError:
    known = [*Spec.model_fields, *(f"{s}.{k}" for s, model in SECTIONS.items() for k in model.model_fields)]
    inner = next((k for k in known if k.endswith(f".{key}")), "")
    near = f" Did you mean `{inner}`?" if inner else nearest(key, known)
    if not near:  # `lrr` is nearer to `lr` than to `train.lr`
        short = {k.rpartition(".")[2]: k for k in known}
        hit = nearest(key, short)
        near = f" Did you mean `{short[hit.split('`')[1]]}`?" if hit else ""
    return SpecError(f"`{key}` is not a key of a spec.{near} Its keys: {', '.join(Spec.model_fields)}.")


def _section(name: str, model: type[BaseModel], given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, BaseModel):
        given = given.model_dump(exclude_unset=True)
    if not isinstance(given, dict):
        hint = " Files belong under `data: {train: …}`." if name == "train" else ""
        raise SpecError(
            f"`{name}` must hold keys such as {', '.join(list(model.model_fields)[:4])}; it is "
            f"{given!r}.{hint}"
        )
    other = "data" if name == "train" else "train"
    for key in map(str, given):
        if key not in model.model_fields:
            moved = key in SECTIONS[other].model_fields
            near = f" Did you mean `{other}.{key}`?" if moved else nearest(key, model.model_fields)
            raise SpecError(
                f"`{name}.{key}` is not a key of a spec.{near} Keys of `{name}`: "
                f"{', '.join(model.model_fields)}."
            )
    return {key: _number(value) if not _is_text(f"{name}.{key}") else value for key, value in given.items()}


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` and `1e3` as strings; pydantic takes neither for an int."""
    if isinstance(value, str) and any(c.isdigit() for c in value) and set(value) <= set("0123456789.eE+-_"):
        with contextlib.suppress(ValueError):
            return float(value)
    return value
