"""The verb `export`: a bundle as another library reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson, BaseFolder, Files, Folder, given_of
from penjing.errors import SpecError, nearest
from penjing.screen import Screen, print_json


def export(
    run: Folder,
    to: Annotated[str, typer.Option("--to", help="target, such as onnx; `penjing list exporters` shows all")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")],
    sets: Annotated[
        Files, typer.Option("--set", help="setting of the target, such as opset=20", metavar="KEY=VALUE")
    ] = None,
    rows: Annotated[
        Files, typer.Option("--rows", help="labelled rows to replay; the run's own if none")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="column of the text, when it is not found")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="column of the label, when it is not found")
    ] = None,
    tolerance: Annotated[
        Files,
        typer.Option("--tolerance", help="how far it may differ, such as answers=0.98", metavar="KEY=VALUE"),
    ] = None,
    base: BaseFolder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="look at everything, write nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a bundle for another library, and keep it only where it answers the same."""
    with Screen(as_json=as_json) as screen:
        from penjing.jobs.export import export as job
        from penjing.jobs.parity import Tolerance

        settings = _values(sets, "--set")
        allowed = _values(tolerance, "--tolerance")
        known = list(Tolerance.__dataclass_fields__)
        strange = next((key for key in allowed if key not in known), None)
        if strange:
            raise SpecError(
                f"`--tolerance {strange}` is not one of {', '.join(known)}.{nearest(strange, known)} Mend it."
            )
        odd = next((key for key, value in allowed.items() if not isinstance(value, float | int | None)), None)
        if odd:
            raise SpecError(
                f"`--tolerance {odd}` wants a number, or null to judge nothing; it is {allowed[odd]!r}. Say "
                f"such as `{odd}={getattr(Tolerance, odd)}`."
            )
        made = job(
            run,
            out,
            to={to: settings} if settings else to,
            base=base,
            tolerance=Tolerance(**allowed) if allowed else None,
            dry_run=dry_run,
            tell=screen.tell,
            **given_of(rows=rows, text=text, label=label),
        )
    if as_json:
        about = {"folder": str(made.folder), "target": made.target, "opens": made.opens, "notes": made.notes}
        print_json({**about, "parity": made.parity})
    elif dry_run:
        typer.echo(f"{made.target} can hold it; {made.folder} would be opened by {made.opens}")
    else:
        typer.echo(_told(made))


def _told(made: Any) -> str:
    """What was proved, in a few lines."""
    found = made.parity
    outputs, edges = found["outputs"], found["edges"]
    lines = [
        f"{made.folder}: {made.bytes / 2**20:,.1f} MiB",
        f"  opened by   {made.opens}",
        f"  replayed    {found['rows']['held_out']:,} held-out rows: outputs differ by at most "
        f"{outputs['of_largest_output']:.1e} of the largest, least cosine {outputs['least_cosine']:.6f}",
    ]
    if edges:
        lines.append(f"  edge cases  {', '.join(found['rows']['edges'])}: {edges['of_largest_output']:.1e}")
    if "answers" in found:
        lines.append(f"  answers     {found['answers']['alike']:.1%} of {found['answers']['n']:,} the same")
    if "said_without_penjing" in found:
        lines.append(f"  by itself   {found['said_without_penjing']:,} answers without penjing, all the same")
    if "score" in found:
        score = found["score"]
        lines.append(f"  {score['name']:<11} {score['original']:.4f} before, {score['artefact']:.4f} after")
    return "\n".join(lines)


def _values(given: list[str] | None, option: str) -> dict[str, Any]:
    """`key=value` pairs, the values as YAML."""
    from penjing.spec import of_yaml

    found: dict[str, Any] = {}
    for one in given or ():
        key, sign, value = one.partition("=")
        if not sign or not key:
            raise SpecError(f"`{option}` takes KEY=VALUE; it is {one!r}. Such as `{option} opset=20`.")
        found[key.strip()] = of_yaml(value, f"{option} {one}")
    return found
