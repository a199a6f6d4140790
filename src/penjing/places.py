"""Paths: absolute ones in what a spec says, so that it holds from any folder; and as a command says them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDERS = ("base", "tokenizer", "parent")  # keys of a spec whose value may be a folder


def anchored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a spec, spaces among them, with absolute paths to the folders that they name; `data`
    as it is."""
    found = {key: folder(value) if key in FOLDERS else value for key, value in values.items()}
    return {key: _plugs(value) if key in ("task", "techniques") else value for key, value in found.items()}


def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a task or a technique with absolute paths."""
    ways = {"teacher": folder, "reference": folder, "unlabelled": files}
    return {key: ways[key](value) if key in ways else value for key, value in settings.items()}


def folder(name: Any) -> Any:
    """A folder here, or each of a list or a mapping, by its absolute path; any other value as it is."""
    if isinstance(name, list):
        return [folder(one) for one in name]
    if isinstance(name, dict):
        return {key: folder(one) for key, one in name.items()}
    return str(Path(name).absolute()) if isinstance(name, str) and Path(name).is_dir() else name


def files(source: Any) -> Any:
    """A source of rows, or each of a list or a mapping, by its absolute path."""
    if isinstance(source, list):
        return [files(one) for one in source]
    if isinstance(source, dict):
        return {name: files(one) for name, one in source.items()}
    if source is None or source.startswith(("hf:", "~")):
        return source
    sides = [side.strip() for side in source.split("+")]
    if len(sides) > 1 and not Path(source).exists() and all(Path(side).is_file() for side in sides):
        return "+".join(map(files, sides))  # files whose lines belong together
    return str(Path(source).absolute())


def _plugs(value: Any) -> Any:
    """A plug-in as a spec writes it, or a list or a choice of them."""
    if isinstance(value, list):
        return [_plugs(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {k: settled(v) if isinstance(v, dict) else _plugs(v) for k, v in value.items()}


def typed(path: str | Path) -> str:
    """A path as a command to copy says it: quoted where a shell would break it at a blank."""
    return shlex.quote(str(path))
