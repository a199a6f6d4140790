"""Options that several verbs have, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.errors import SpecError

SpecFile = Annotated[
    Path | None, typer.Argument(help="YAML spec; every key can also be given below", show_default=False)
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="any key, such as train.lr=1e-4", metavar="KEY=VALUE")
]
Processes = Annotated[
    int | None, typer.Option("--processes", help="that train together, one a GPU; also with --resume")
]
BaseName = Annotated[str | None, typer.Option("--base", help="preset (minilm), folder or hub name")]
BaseFolder = Annotated[str | None, typer.Option("--base", help="where the bundle's base is, if it has moved")]
Files = list[str] | None
TrainRows = Annotated[
    Files, typer.Option("--train", metavar="ROWS", help="rows to learn from: file, folder, glob")
]
ValidRows = Annotated[
    Files, typer.Option("--valid", metavar="ROWS", help="validation rows; cut from train when not given")
]
TestRows = Annotated[Files, typer.Option("--test", metavar="ROWS", help="test rows, used once, at the end")]
TextColumn = Annotated[str | None, typer.Option("--text", help="column of the text; a+b for several")]
LabelColumn = Annotated[str | None, typer.Option("--label", help="column of the label")]
TaskName = Annotated[str | None, typer.Option("--task", help="what to learn; classify if not given")]
MethodName = Annotated[
    str | None, typer.Option("--method", help="what trains, such as lora; full if not given")
]
Out = Annotated[str | None, typer.Option("--out", help="folder that holds the runs; runs if not given")]
RunName = Annotated[str | None, typer.Option("--name", help="name of the run's folder")]
Resume = Annotated[
    bool, typer.Option("--resume", help="go on with the run named in place of the spec, or the newest open")
]
On = Annotated[
    str | None, typer.Option("--on", help="ray://HOST:PORT of a Ray cluster; ray for one on this machine")
]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]
Schema = Annotated[
    Path | None, typer.Option("--schema", help="JSON file with the JSON schema that answers shall keep to")
]
Regex = Annotated[str | None, typer.Option("--regex", help="pattern that answers shall match as a whole")]
Choices = Annotated[str | None, typer.Option("--choices", help="the only answers: a,b,c")]
Folder = Annotated[Path, typer.Argument(help="run or bundle folder")]


def given_of(**options: Any) -> dict[str, Any]:
    """The options that were given; a list of one file is that file."""
    there = {key: value for key, value in options.items() if value is not None and value != []}
    return {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in there.items()}


def form_given(schema: Path | None, regex: str | None, choices: str | None) -> dict[str, Any] | None:
    """The form that answers shall have, as `Bundle.formed` takes it.

    Raises:
        SpecError: two are given, or the schema's file is no JSON.
    """
    given = given_of(schema=schema, regex=regex, choices=choices)
    if len(given) > 1:
        raise SpecError(f"One form of answers was wanted; --{' and --'.join(given)} are given. Keep one.")
    if schema is not None:
        try:
            return {"schema": json.loads(schema.read_text(encoding="utf-8"))}
        except (OSError, ValueError) as error:
            raise SpecError(
                f"`--schema` must be a JSON file with a schema; {schema} could not be read as one ({error}). "
                "Give its path."
            ) from error
    if choices is not None:
        return {"choices": [one.strip() for one in choices.split(",")]}
    return {"regex": regex} if regex is not None else None


def refuse_ignored(given: dict[str, Any], *, sets: list[str] | None, dry_run: bool) -> None:
    """Options beside `--resume`, which would change nothing.

    Raises:
        SpecError: there is one.
    """
    named = [*(key.rpartition(".")[2] for key in given), *["set"] * bool(sets), *["dry-run"] * dry_run]
    if named:
        options = ", ".join(f"--{name}" for name in named)
        raise SpecError(
            f"`--resume` goes on with a run as its spec.yaml says; {options} would be ignored. Leave it out, "
            f"or start a new run without `--resume`."
        )
