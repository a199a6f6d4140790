"""The verbs `list` and `show`: what can be chosen, and how each of it is made."""

from __future__ import annotations

from typing import Annotated

import typer

from penjing.cli_options import AsJson
from penjing.screen import Screen, print_list, print_plugin


def list_(
    kind: Annotated[str | None, typer.Argument(help="tasks, methods, techniques …")] = None,
    as_json: AsJson = False,
) -> None:
    """List what can be chosen: tasks, methods, techniques and presets."""
    with Screen(as_json=as_json):
        print_list(kind, as_json=as_json)


def show(
    kind: Annotated[str, typer.Argument(help="tasks, methods, techniques …")],
    name: Annotated[str, typer.Argument(help="such as lora")],
    source: Annotated[bool, typer.Option("--source/--no-source", help="print the code, too")] = True,
) -> None:
    """Show a plug-in: settings, documentation, code."""
    with Screen():
        print_plugin(kind, name, source=source)
