"""A YAML file as a mapping, read strictly: a key that is given twice is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penjing.errors import SpecError


def read_yaml(path: Path) -> dict[str, Any]:
    """The top mapping of a YAML file; empty for an empty file.

    Raises:
        SpecError: not readable, not YAML, no mapping, or a key that is given twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        twice = _key_given_twice(yaml.compose(text, yaml.SafeLoader))
        value = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:  # ValueError: a date such as 2024-02-31
        raise SpecError(f"{path} is not readable as YAML: {error}. Mend that line and try again.") from error
    except OSError as error:
        raise SpecError(
            f"{path} was to be read; the system said: {error.strerror}. Give a file you may read."
        ) from error
    if twice:
        raise SpecError(f"{path}, line {twice[1]}: the key `{twice[0]}` is given a second time. Keep one.")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(
            f"{path} must hold `key: value` lines; its top is a {type(value).__name__}. "
            f"See `penjing tune --help`."
        )
    return value


def _key_given_twice(node: Any) -> tuple[str, int] | None:
    """(key, line) of a key that a mapping holds twice: YAML would drop the first without a word."""
    children = [part for pair in node.value for part in pair] if getattr(node, "id", "") == "mapping" else []
    seen: set[str] = set()
    for key in children[::2]:
        if key.id == "scalar" and key.value in seen:
            return key.value, key.start_mark.line + 1
        seen.add(str(key.value))
    if getattr(node, "id", "") == "sequence":
        children = node.value
    return next((hit for child in children if (hit := _key_given_twice(child))), None)
