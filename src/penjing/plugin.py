"""Find plug-ins and check their settings: `{lora: {rank: 8}}` means `methods/lora.py: lora(rank=8)`.

A plug-in is a function named like its file, in the folder of its kind; its keyword-only arguments are its settings,
and its signature is their schema (names, types, defaults). A name with a dot, such as `mypackage.ideas.warp`, reaches a
function of the user's own. The folder is read without importing it, so listing costs nothing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.errors import SpecError, nearest

KINDS = ("tasks", "objectives", "methods", "techniques", "compressors")
_HOME = Path(__file__).parent


@dataclass(frozen=True)
class PlugIn:
    """One plug-in as found on disk: its kind (folder), name (file and function) and first docstring line."""

    kind: str
    name: str
    summary: str


@dataclass(frozen=True)
class Choice:
    """A plug-in somebody chose, with its settings: what `{lora: {rank: 8}}` becomes."""

    name: str
    settings: dict[str, Any]

    def written(self) -> str | dict[str, dict[str, Any]]:
        """The shortest spelling for a spec file."""
        return {self.name: self.settings} if self.settings else self.name


def found(kind: str) -> dict[str, PlugIn]:
    """Every plug-in of a kind, by name, read from the folder without importing anything."""
    folder = _HOME / kind
    plugs: dict[str, PlugIn] = {}
    for path in sorted(folder.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
                plugs[node.name] = PlugIn(kind, node.name, summary)
    return plugs


def choice(value: Any, *, kind: str, key: str) -> Choice:
    """Read `name`, `{name: {setting: value}}` or a Choice into a Choice.

    Raises:
        SpecError: the value has another shape, names no plug-in, or gives settings that the plug-in does not have.
    """
    if isinstance(value, Choice):
        picked = value
    elif isinstance(value, str):
        picked = Choice(value, {})
    elif isinstance(value, dict) and len(value) == 1:
        name, settings = next(iter(value.items()))
        if settings is not None and not isinstance(settings, dict):
            raise SpecError(
                f"`{key}.{name}` must hold settings such as `{{{name}: {{setting: value}}}}`; it holds {settings!r}. "
                f"`penjing show {kind} {name}` lists its settings."
            )
        picked = Choice(str(name), dict(settings or {}))
    else:
        raise SpecError(
            f"`{key}` must be a name or `{{name: {{setting: value}}}}`; it is {value!r}. "
            f"`penjing list` shows the {kind} there are."
        )
    settings_of(kind, picked)
    return picked


def function(kind: str, name: str) -> Callable[..., Any]:
    """The plug-in function itself; imports its module.

    Raises:
        SpecError: there is no such plug-in, or a dotted name cannot be imported.
    """
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
        except (ImportError, AttributeError) as error:
            raise SpecError(
                f"`{name}` ({kind}) could not be imported: {error}. It must be a function on the Python path; "
                f"run from the folder that holds it, or install its package."
            ) from error
    known = found(kind)
    if name not in known:
        raise SpecError(
            f"`{name}` is not one of the {kind}: {', '.join(known) or 'none here'}.{nearest(name, known)} "
            f"A function of your own is reached by a dotted name, such as `mypackage.{name}`."
        )
    return getattr(importlib.import_module(f"penjing.{kind}.{name}"), name)  # type: ignore[no-any-return]


def signature(kind: str, name: str) -> dict[str, tuple[str, Any, bool]]:
    """Settings of a plug-in: name -> (type as written, default, required), without importing a built-in one."""
    if "." in name:
        params = inspect.signature(function(kind, name)).parameters.values()
        return {
            p.name: (str(p.annotation), None if p.default is p.empty else p.default, p.default is p.empty)
            for p in params
            if p.kind is p.KEYWORD_ONLY
        }
    if name not in found(kind):
        function(kind, name)  # raises with the nearest name
    tree = ast.parse((_HOME / kind / f"{name}.py").read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    settings: dict[str, tuple[str, Any, bool]] = {}
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        kind_of = ast.unparse(arg.annotation) if arg.annotation else "Any"
        value = ast.literal_eval(default) if default is not None else None
        settings[arg.arg] = (kind_of, value, default is None)
    return settings


def settings_of(kind: str, picked: Choice) -> dict[str, Any]:
    """All settings of a chosen plug-in, defaults filled in and types checked by pydantic.

    Raises:
        SpecError: an unknown setting, a missing one, or a value of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    known = signature(kind, picked.name)
    for name in picked.settings:
        if name not in known:
            raise SpecError(
                f"`{picked.name}.{name}` is not a setting of {kind}/{picked.name}.py.{nearest(name, known)} "
                f"`penjing show {kind} {picked.name}` lists them all."
            )
    full: dict[str, Any] = {}
    for name, (kind_of, default, required) in known.items():
        if name not in picked.settings:
            if required:
                raise SpecError(
                    f"`{picked.name}.{name}` must be given ({kind_of}); it is missing. "
                    f"`penjing show {kind} {picked.name}` says what it means."
                )
            full[name] = default
            continue
        value = picked.settings[name]
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(
                eval(kind_of, _TYPES)
            )  # our own annotation, never user text
            full[name] = adapter.validate_python(value)
        except (NameError, SyntaxError):
            full[name] = value
        except ValidationError as error:
            raise SpecError(
                f"`{picked.name}.{name}` must be {kind_of}; it is {value!r} ({error.errors()[0]['msg']}). "
                f"`penjing show {kind} {picked.name}` says what it means."
            ) from error
    return full


def build(kind: str, picked: Choice) -> Any:
    """Call the plug-in with its settings."""
    return function(kind, picked.name)(**settings_of(kind, picked))


def _types() -> dict[str, Any]:
    from typing import Literal

    return {
        "Literal": Literal,
        "Any": Any,
        "__builtins__": {t.__name__: t for t in (int, float, str, bool, list, dict, tuple)},
    }


_TYPES = _types()
