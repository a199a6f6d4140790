"""The steps of a chain of compressors as they are written, and the key of what comes of each.

`trim_vocabulary>round(bits=4)` in a line, or a list in YAML: `[trim_vocabulary, {round: {bits: 4}}]`.
A key is a hash of all that decides a step's result: the model it began from, the steps so far with all their
settings, the rows that were looked at, seed and release. So a chain that is asked for again, or another one
that begins alike, finds what is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from penjing import plugin
from penjing.compressor import Compressor
from penjing.errors import SpecError
from penjing.jobs.lineage import versions
from penjing.plugin import Choice

KEY = 8  # digits of a key in a folder's name
SET = re.compile(r"""\"[^\"]*\"|'[^']*'|(\w+)\s*=\s*""")
ONE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:\((.*)\))?\s*", re.DOTALL)


def read(asked: str | Path | Sequence[Any]) -> list[Choice]:
    """The steps, with every setting checked and filled in.

    Raises:
        SpecError: not written as steps are, an unknown compressor or setting, or no step at all.
    """
    if isinstance(asked, Path) or (isinstance(asked, str) and asked.endswith((".yaml", ".yml"))):
        asked = _of_file(Path(asked))
    written: list[Any] = _pieces(asked) if isinstance(asked, str) else [*asked]  # type: ignore[misc]
    if not written:
        raise SpecError(
            "Steps of a chain were wanted; there is none. Say `--with int8`, or `--with "
            '"trim_vocabulary>int8"`; `penjing list compressors` shows those there are.'
        )
    chosen = [_one(piece) if isinstance(piece, str) else piece for piece in written]
    return [plugin.choice(piece, kind="compressors", key="with") for piece in chosen]


def _of_file(path: Path) -> Any:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(
            f"A list of steps was wanted in {path}; it cannot be read ({str(error).splitlines()[0]}). Write "
            "`with: [trim_vocabulary, {round: {bits: 4}}]` into it."
        ) from error
    steps = found.get("with") if isinstance(found, dict) else found
    if not isinstance(steps, str | list):
        raise SpecError(
            f"{path} must hold steps under `with`; it holds {type(steps).__name__}. Write `with: "
            "[trim_vocabulary, {round: {bits: 4}}]`."
        )
    other = next((key for key in found if key not in ("with", "run")), None) if steps is not found else None
    if other is not None:
        raise SpecError(
            f"{path} holds steps, under `with`; `{other}` beside them would be ignored. Leave it out, and "
            "give `--budget` and `--seed` on the command line."
        )
    return steps


def _pieces(text: str) -> list[str]:
    """Cut at every > outside brackets."""
    cuts, depth = [-1], 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == ">" and not depth:
            cuts.append(place)
    pieces = [text[a + 1 : b].strip() for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return [] if pieces == [""] else pieces


def _one(piece: str) -> Any:
    """`round(bits=4, group=64)` as `{round: {bits: 4, group: 64}}`."""
    found = ONE.fullmatch(piece)
    if not found:
        raise SpecError(
            f"A step is written `name` or `name(setting=value, …)`; this one is {piece!r}. For example "
            '`--with "trim_vocabulary>round(bits=4, group=64)"`.'
        )
    name, inside = found[1], found[2]
    if not inside or not inside.strip():
        return name
    try:  # settings are YAML of one line, with = for its colon, but within quotes
        settings = yaml.safe_load(
            "{" + SET.sub(lambda found: f"{found[1]}: " if found[1] else found[0], inside) + "}"
        )
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict) or (None in settings.values() and "null" not in inside):
        raise SpecError(
            f"The settings of `{name}` are written `name(setting=value, …)`; they are {inside!r}. `penjing "
            f"show compressors {name}` lists them."
        )
    return {name: settings}


def build(steps: Sequence[Choice]) -> list[Compressor]:
    """The compressors that the steps name.

    Raises:
        SpecError: settings that do not go together.
    """
    return [plugin.build("compressors", step) for step in steps]


def key_of(start: str, steps: Sequence[Choice], rows: str, seed: int) -> str:
    """Of the last of these steps: from a model with this hash, over rows with this one."""
    said = [start, [step.written() for step in steps], rows, seed, versions()["penjing"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def folder_of(out: Path, steps: Sequence[Choice], key: str) -> Path:
    """Where what comes of the last of these steps lies: `out/2-int8-1f0c3a77`."""
    return out / f"{len(steps)}-{steps[-1].name.rpartition('.')[2]}-{key[:KEY]}"


def said(steps: Sequence[Choice], *, every: bool = False) -> str:
    """The steps in a line, with the settings that are not their defaults, or with `every` one."""
    return ">".join(_said(step, every) for step in steps)


def _said(step: Choice, every: bool) -> str:
    defaults = {} if every else plugin.signature("compressors", step.name)
    own = {
        k: v
        for k, v in step.settings.items()
        if k not in defaults or defaults[k].required or v != defaults[k].default
    }
    inside = ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in own.items())
    return f"{step.name}({inside})" if inside else step.name
