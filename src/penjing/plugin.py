"""Find plug-ins and check their settings: `{lora: {rank: 8}}` means `methods/lora.py: lora(rank=8)`.

A plug-in is a function named like its file, in the folder of its kind; its keyword-only arguments are its
settings, and its signature is their schema (names, types, defaults). A name with a dot, such as
`mypackage.ideas.warp`, reaches a function of the user's own. The folder is read without importing it, so
listing costs nothing.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from penjing import trust
from penjing.errors import SpecError, nearest

# Kind (folder) -> the record that a plug-in of it gives.
KINDS = {
    "tasks": "task.Task",
    "objectives": "task.Task",
    "methods": "records.Method",
    "techniques": "records.Technique",
    "trackers": "tracker.Tracker",
    "compressors": "compressor.Compressor",
    "exporters": "exporter.Exporter",
}
# A task may be an objective by name: pretraining is tuning without labels.
ALSO = {"tasks": "objectives"}
_HOME = Path(__file__).parent
# What annotations of built-in plug-ins may name.
_TYPES: dict[str, Any] = {
    "Literal": Literal,
    "Any": Any,
    "__builtins__": {t.__name__: t for t in (int, float, str, bool, list, dict, tuple)},
}


@dataclass(frozen=True)
class PlugIn:
    """A built-in plug-in as found on disk: its kind (folder), name (file and function), docstring, file."""

    kind: str
    name: str
    doc: str
    path: Path

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.doc.split("\n", 1)[0]


@dataclass(frozen=True)
class Setting:
    """One setting of a plug-in: its type as written, its default (None when it must be given)."""

    type: str
    default: Any
    required: bool


@dataclass(frozen=True)
class Choice:
    """A plug-in somebody chose, with all its settings: what `{lora: {rank: 8}}` becomes."""

    name: str
    settings: dict[str, Any]

    def written(self) -> str | dict[str, dict[str, Any]]:
        """The spelling for a spec file, every setting written out."""
        return {self.name: dict(self.settings)} if self.settings else self.name


def found(kind: str) -> dict[str, PlugIn]:
    """Every plug-in of a kind, by name, read from the folder without importing anything."""
    plugs: dict[str, PlugIn] = {}
    for path in sorted((_HOME / kind).glob("*.py")):
        node = None if path.stem.startswith("_") else _definition(path)
        if node is not None:
            plugs[node.name] = PlugIn(kind, node.name, ast.get_docstring(node) or "", path)
    return plugs


def advice(kind: str, name: str) -> dict[str, Any]:
    """What a plug-in says of the spec's section `train` where the spec says nothing: `TRAIN` in its file."""
    if "." in name:
        trust.check(kind, name)
        module = importlib.import_module(name.rpartition(".")[0])
        return dict(getattr(module, "TRAIN", {}))
    tree = ast.parse(_built_in(kind, name).path.read_text(encoding="utf-8"))
    said = (n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "TRAIN")
    value = next(said, None)
    return {} if value is None else ast.literal_eval(value)


def bases() -> dict[str, dict[str, list[str]]]:
    """Families that each method `works` on and those it `refuses`, as the contract test found them."""
    known: dict[str, dict[str, list[str]]] = json.loads((_HOME / "methods/bases.json").read_text("utf-8"))
    return known


def _definition(path: Path) -> ast.FunctionDef | None:
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=512)
def _parsed(path: Path, changed_ns: int) -> ast.FunctionDef | None:
    """Read again only when the file has changed: parsing them all takes a second, and a service opens many
    bundles."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == path.stem), None)


def choice(value: Any, *, kind: str, key: str) -> Choice:
    """Read `name`, `{name: {setting: value}}` or a Choice into a Choice with every setting filled in.

    Raises:
        SpecError: the value has another shape, names no plug-in, or gives settings that the plug-in does not
        have.
    """
    if isinstance(value, Choice):
        name, settings = value.name, value.settings
    elif isinstance(value, str):
        name, settings = value, {}
    elif isinstance(value, dict) and len(value) == 1:
        name, settings = next(iter(value.items()))
        name, settings = str(name), {} if settings is None else settings
        if not isinstance(settings, dict):
            raise SpecError(
                f"`{key}.{name}` must hold settings such as `{{{name}: {{setting: value}}}}`; it holds "
                f"{settings!r}. `penjing show {kind} {name}` lists its settings."
            )
    else:
        raise SpecError(
            f"`{key}` must be a name or `{{name: {{setting: value}}}}`; it is {value!r}. "
            f"`penjing list {kind}` shows those there are."
        )
    return Choice(name, settings_of(kind, Choice(name, settings)))


def function(kind: str, name: str) -> Callable[..., Any]:
    """The plug-in function itself; imports its module.

    Raises:
        SpecError: there is no such plug-in, or a dotted name cannot be imported.
    """
    if "." in name:
        return _own_function(kind, name)
    home = _built_in(kind, name).kind
    return getattr(importlib.import_module(f"penjing.{home}.{name}"), name)  # type: ignore[no-any-return]


def about(kind: str, name: str) -> PlugIn:
    """Documentation and file of a plug-in, a user's own too; a built-in one is not imported for it.

    Raises:
        SpecError: there is no such plug-in.
    """
    if "." not in name:
        return _built_in(kind, name)
    own = _own_function(kind, name)
    return PlugIn(kind, name, inspect.getdoc(own) or "", Path(inspect.getsourcefile(own) or ""))


def _own_function(kind: str, name: str) -> Callable[..., Any]:
    trust.check(kind, name)
    module, _, attribute = name.rpartition(".")
    try:
        made: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: an empty part, as in `a..b`
        raise SpecError(
            f"`{name}` ({kind}) could not be imported: {error}. It must be a function on the Python path; "
            f"run from the folder that holds it, or install its package."
        ) from error
    if not callable(made):
        raise SpecError(
            f"`{name}` ({kind}) must be a function; it is a {type(made).__name__}. Name the function itself."
        )
    return made


def _built_in(kind: str, name: str) -> PlugIn:
    known = {**(found(ALSO[kind]) if kind in ALSO else {}), **found(kind)}
    if name not in known:
        raise SpecError(
            f"`{name}` is not one of the {kind}: {', '.join(known) or 'none here'}.{nearest(name, known)} "
            f"A function of your own is reached by a dotted name, such as `mypackage.{name}`."
        )
    return known[name]


def signature(kind: str, name: str) -> dict[str, Setting]:
    """Settings of a plug-in by name; a built-in one is not imported for it.

    Raises:
        SpecError: there is no such plug-in.
    """
    if "." in name:
        params = inspect.signature(_own_function(kind, name)).parameters.values()
        return {
            p.name: Setting(
                inspect.formatannotation(p.annotation).strip("'\"") if p.annotation is not p.empty else "Any",
                None if p.default is p.empty else p.default,
                p.default is p.empty,
            )
            for p in params
            if p.kind is p.KEYWORD_ONLY
        }
    node = _definition(_built_in(kind, name).path)
    assert node is not None
    return {
        arg.arg: Setting(
            ast.unparse(arg.annotation) if arg.annotation else "Any",
            None if default is None else ast.literal_eval(default),
            default is None,
        )
        for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    }


def takes_more(kind: str, name: str) -> bool:
    """Whether a plug-in takes settings beyond its signature (`**settings`), and checks them itself."""
    if "." in name:
        params = inspect.signature(_own_function(kind, name)).parameters.values()
        return any(p.kind is p.VAR_KEYWORD for p in params)
    node = _definition(_built_in(kind, name).path)
    assert node is not None
    return node.args.kwarg is not None


def settings_of(kind: str, picked: Choice) -> dict[str, Any]:
    """All settings of a chosen plug-in, defaults filled in and types checked by pydantic.

    Raises:
        SpecError: an unknown setting, a missing one, or a value of the wrong type.
    """
    known = signature(kind, picked.name)
    more = f"`penjing show {kind} {picked.name}`"
    more_of_them = {k: v for k, v in picked.settings.items() if k not in known}
    for name in map(str, more_of_them):
        if not takes_more(kind, picked.name):
            home = f"{kind}/{picked.name}.py" if "." not in picked.name else picked.name
            raise SpecError(
                f"`{picked.name}.{name}` is not a setting of {home}.{nearest(name, known)} {more} lists them "
                "all."
            )
    full: dict[str, Any] = {}
    for name, setting in known.items():
        if name in picked.settings:
            full[name] = _checked(kind, picked.name, name, setting, picked.settings[name])
        elif setting.required:
            raise SpecError(
                f"`{picked.name}.{name}` must be given ({setting.type}); it is missing. {more} says what it "
                "means."
            )
        else:
            full[name] = setting.default
    return {**full, **more_of_them}


def _checked(kind: str, plug: str, name: str, setting: Setting, value: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    lax = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)  # YAML: labels: [1, 2] are names
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_type(kind, plug, name, setting), config=lax)
    except (NameError, SyntaxError, TypeError, PydanticUserError):
        return value  # a type of the user's own that pydantic does not know: the function must check it
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise SpecError(
            f"`{plug}.{name}` must be {setting.type}; it is {value!r} ({error.errors()[0]['msg']}). "
            f"`penjing show {kind} {plug}` says what it means."
        ) from error


def _type(kind: str, plug: str, name: str, setting: Setting) -> Any:
    if "." in plug:
        return get_type_hints(_own_function(kind, plug)).get(name, Any)
    return eval(setting.type, _TYPES)  # an annotation of our own source, never a user's text


def build(kind: str, picked: Choice) -> Any:
    """Call the plug-in with its settings.

    Raises:
        SpecError: settings that do not go together, or a function of the user's own that gives something
        else.
    """
    made = function(kind, picked.name)(**settings_of(kind, picked))
    if type(made).__name__ != KINDS[kind].rpartition(".")[2]:
        raise SpecError(
            f"`{picked.name}` ({kind}) must give a penjing.{KINDS[kind]}; it gave a "
            f"{type(made).__name__}. `penjing list {kind}` shows those that come with penjing."
        )
    return made
