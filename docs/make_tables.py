"""Write the tables of the documentation from the code: `python docs/make_tables.py`.

Between `<!-- table NAME -->` and `<!-- end -->` a page holds a table made here from the spec's pydantic
models, the plug-ins' signatures or the command line. `tests/test_docs.py` fails when a page is behind.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penjing import plugin
from penjing.chains.asked import SearchSpec
from penjing.chains.update_spec import Gate, Update
from penjing.corpus import asked as corpus
from penjing.keys import SECTIONS
from penjing.models.shapes import SHAPES
from penjing.spec import Spec

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- table ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
GIVEN = {"peft": {"peft_type": "VERA"}}  # settings that must be given
SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _kind(annotation: Any) -> str:
    """A type as a reader would say it."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is Annotated:
        first, *rules = get_args(annotation)
        return _kind(first) + "".join(_range(rule) for rule in rules)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) in (list, tuple):
        inner = [one for one in get_args(annotation) if one is not Ellipsis]
        return "list" if get_origin(annotation) is list or len(inner) < 2 else f"{len(inner)} numbers"
    if get_origin(annotation) is dict:
        return "`{field: value}`"
    plain = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return plain.get(annotation, "name or `{name: {setting: value}}`")


def _range(field: FieldInfo) -> str:
    said = [
        f"{word} {getattr(rule, sign):,}"
        for rule in field.metadata
        for sign, word in SIGNS.items()
        if getattr(rule, sign, None) is not None
    ]
    return f", {' and '.join(said)}" if said else ""


def _written(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, str) and not value.strip():
        return f"`{json.dumps(value)}`"  # bare, a new line would end the row
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _table(head: list[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _fields(model: type[BaseModel], prefix: str) -> Iterator[list[str]]:
    defaults = {"task": "classify", "method": "full"}
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} says nothing about itself"
        if any(
            isinstance(one, type) and issubclass(one, BaseModel)
            for one in (field.annotation, *get_args(field.annotation))
        ):
            yield [f"`{name}`", "section", "–", field.description]
            continue
        default = defaults.get(name, field.default) if not prefix else field.default
        kind = f"{_kind(field.annotation)}{_range(field)}"
        yield [f"`{prefix}{name}`", kind, _written(default), field.description]


def spec_table(section: str = "") -> str:
    """The keys of a spec, or of one of its sections."""
    rows = _fields(SECTIONS[section], f"{section}.") if section else _fields(Spec, "")
    return _table(["key", "value", "default", "meaning"], rows)


def corpus_table(section: str = "") -> str:
    """The keys of a corpus's spec, or of one of its sections."""
    model = corpus.SECTIONS[section] if section else corpus.CorpusSpec
    return _table(["key", "value", "default", "meaning"], _fields(model, f"{section}." if section else ""))


def said_of(doc: str, names: list[str]) -> dict[str, str]:
    """`rank: columns of A and B. low, high: …` of a docstring, by name; its first line where one is
    missing."""
    text, one = " ".join(doc.split()), "|".join(names)
    parts = re.split(rf"\b((?:{one})(?:, (?:{one}))*): ", text) if names else [text]
    said = zip(parts[1::2], parts[2::2], strict=True)
    found = {name: meaning for group, meaning in said for name in group.split(", ")}
    return {name: found.get(name, doc.split("\n", 1)[0]).strip().rstrip(".") for name in names}


def settings_table(kind: str, name: str) -> str:
    """The settings of a plug-in, from its signature and docstring."""
    settings = plugin.signature(kind, name)
    said = said_of(plugin.about(kind, name).doc, list(settings))
    head = ["setting", "type", "default", "meaning"]
    return _table(
        head, ([f"`{n}`", f"`{s.type}`", _written(s.default), said[n]] for n, s in settings.items())
    )


BY_WIDTH = {0.0: "", 0.5: " × √(384 / width)", 1.0: " × 384 / width"}


def methods_table() -> str:
    """Every method: what it trains, its rate, and what a bundle holds."""
    holds = {
        "full": "all weights, in transformers' format",
        "changed": "the weights that trained, over the base",
        "added": "the weights that were added, over the base",
        "peft": "an adapter in peft's format, over the base",
    }

    def rows() -> Iterator[list[str]]:
        for name, plug in plugin.found("methods").items():
            made = plugin.build("methods", plugin.Choice(name, GIVEN.get(name, {})))
            rate = f"`{made.lr:g}`" + BY_WIDTH[made.by_width]
            yield [f"`{name}`", plug.summary.rstrip("."), rate, holds[made.saves]]

    return _table(["method", "what it does", "rate when `train.lr` is not given", "a bundle holds"], rows())


def bases_table() -> str:
    """Every method and the families it works on, as the contract test found them."""

    def rows() -> Iterator[list[str]]:
        for name, known in plugin.bases().items():
            yield [f"`{name}`", ", ".join(known["works"]), ", ".join(known["refuses"]) or "–"]

    return _table(["method", "works on", "refuses"], rows())


def _verbs(command: Any) -> dict[str, Any]:
    """The verbs of a group such as `penjing tokenizer`; of a plain verb none."""
    found: dict[str, Any] = getattr(command, "commands", {})
    return found


def presets_table() -> str:
    """Presets to grow: family, parameters, where the shape was published."""
    rows = (
        [f"`{p.name}`", p.about, f"{p.parameters:,}", p.words or "images", p.source] for p in SHAPES.values()
    )
    return _table(["preset", "what it is", "parameters", "words", "shape of"], rows)


def commands_table() -> str:
    """Every verb of the command line and its options."""
    from typer.main import get_command

    group: Any = get_command(__import__("penjing.cli", fromlist=["app"]).app)

    def rows() -> Iterator[list[str]]:
        inner = {f"{verb} {name}": c for verb, g in group.commands.items() for name, c in _verbs(g).items()}
        for name, command in {**group.commands, **inner}.items():
            if _verbs(command):
                continue
            options = [p.opts[-1] for p in command.params if p.param_type_name == "option"]
            given = [f"[{p.name}]" if not p.required else p.name for p in command.params]
            kept = [g for g, p in zip(given, command.params, strict=True) if p.param_type_name == "argument"]
            call = f"`penjing {' '.join([name, *kept])}`"
            about = inspect.cleandoc(command.help or "").split("\n")[0]
            yield [call, about, " ".join(f"`{o}`" for o in options)]

    return _table(["command", "what it does", "options"], rows())


TABLES: dict[str, Callable[[], str]] = {
    "spec": spec_table,
    "data": lambda: spec_table("data"),
    "search": lambda: _table(["key", "value", "default", "meaning"], _fields(SearchSpec, "search.")),
    "update": lambda: _table(["key", "value", "default", "meaning"], _fields(Update, "")),
    "gate": lambda: _table(["key", "value", "default", "meaning"], _fields(Gate, "gate.")),
    "train": lambda: spec_table("train"),
    "corpus": lambda: corpus_table(),
    **{name: lambda name=name: corpus_table(name) for name in corpus.SECTIONS},
    "methods": methods_table,
    "bases": bases_table,
    **{
        name: lambda kind=kind, name=name: settings_table(kind, name)
        for kind in reversed(plugin.KINDS)  # of one name the first kind has the table
        for name in plugin.found(kind)
    },
    "commands": commands_table,
    "presets": presets_table,
}


def renewed(text: str) -> str:
    """A page with its tables made anew.

    Raises:
        KeyError: the page asks for a table that is not made here.
    """
    return BLOCK.sub(lambda found: f"{found[1]}{_made(found[2])}{found[4]}", text)


def _made(name: str) -> str:
    """The table of a name; of a plug-in whose name two kinds have, as in `techniques distill`."""
    kind, _, own = name.rpartition(" ")
    return settings_table(kind, own) if kind else TABLES[name]()


def main() -> None:
    """Renew every page."""
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = renewed(old)
        if new != old:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
