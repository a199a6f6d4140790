"""The verbs `list` and `show`: what can be chosen, and how each of it is made."""

from __future__ import annotations

from typing import Annotated

import typer

from penjing.cli_options import AsJson
from penjing.errors import SpecError, nearest
from penjing.screen import Screen, kinds, print_list, print_plugin


def list_(
    kind: Annotated[str | None, typer.Argument(help="tasks, methods, techniques …")] = None,
    as_json: AsJson = False,
) -> None:
    """List what can be chosen: tasks, methods, techniques and presets."""
    with Screen(as_json=as_json):
        print_list(kind, as_json=as_json)


def show(
    kind: Annotated[str, typer.Argument(help="tasks, methods, techniques …; or a name alone, such as lora")],
    name: Annotated[str | None, typer.Argument(help="such as lora; all of the kind when not given")] = None,
    source: Annotated[bool, typer.Option("--source/--no-source", help="print the code, too")] = True,
) -> None:
    """Show a plug-in: settings, documentation, code."""
    with Screen():
        found = (kind, name) if name is not None else _only(kind)
        if found is None:
            print_list(kind, as_json=False)
        else:
            print_plugin(*found, source=source)


def _only(word: str) -> tuple[str, str] | None:
    """The one kind that has something of this name, and the name; None where the word is no name."""
    known = kinds()
    homes = [kind for kind, plugs in known.items() if word in plugs]
    if len(homes) > 1:
        ways = " or ".join(f"`penjing show {kind} {word}`" for kind in homes)
        raise SpecError(f"`{word}` is found among {' and '.join(homes)}; one was wanted. Say {ways}.")
    if homes or any(word in (kind, kind.removesuffix("s")) for kind in known):
        return (homes[0], word) if homes else None
    names = {name for plugs in known.values() for name in plugs}
    raise SpecError(
        f"`{word}` is neither a kind of plug-in ({', '.join(known)}) nor the name of one."
        f"{nearest(word, sorted({*known, *names}))} `penjing list` shows them all."
    )
