"""The verb `plan`: what a spec or a question takes, how right that was, and a law of one's own runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson
from penjing.errors import SpecError
from penjing.screen import Screen, print_json, print_table


def plan(
    spec: Annotated[
        Path | None, typer.Argument(help="YAML spec; or ask by --rows or --corpus-tokens", show_default=False)
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="preset, folder or hub name, of a spec")] = None,
    train: Annotated[
        list[str] | None, typer.Option("--train", help="rows or corpus to learn from, of a spec")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="of a spec, such as classify, or masked for a pretraining")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="of a spec, such as full or lora")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="any key of a spec", metavar="KEY=VALUE")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", help="labelled rows there are")] = None,
    tokens: Annotated[float | None, typer.Option("--tokens", help="tokens of a row, 32 if not given")] = None,
    labels: Annotated[int | None, typer.Option("--labels", help="different labels, 10 if not given")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="time there is")] = None,
    corpus_tokens: Annotated[
        float | None, typer.Option("--corpus-tokens", help="tokens of raw text to pretrain on, such as 5e7")
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="of the pretraining: masked or causal")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda")] = None,
    memory_gib: Annotated[
        float | None, typer.Option("--memory-gib", help="plan as if so much memory were free")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option("--audit", help="folder of runs: their forecasts against the truth")
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option("--fit", help="CSV of parameters, tokens, loss: their scaling law"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what fits, what to take and how long it will take; and how right that was."""
    of_spec = {"base": base, "train": train, "task": task, "method": method, "set": sets}
    question = {
        "rows": rows,
        "tokens": tokens,
        "labels": labels,
        "minutes": minutes,
        "corpus_tokens": corpus_tokens,
        "objective": objective,
    }
    with Screen(as_json=as_json) as screen:
        asked = {key: value for key, value in question.items() if value is not None}
        named = {key: value for key, value in of_spec.items() if value}
        here = {"device": device, "memory_gib": memory_gib}
        here = {key: value for key, value in here.items() if value is not None}
        others = {"spec": spec, **named, **asked, **here}
        if audit is not None:
            _alone("audit", {**others, "fit": fit})
            _audit(audit, as_json)
        elif fit is not None:
            _alone("fit", others)
            _fit(fit, as_json)
        elif rows is not None or corpus_tokens is not None:
            _alone("rows" if rows is not None else "corpus-tokens", {"spec": spec, **named})
            _advise({**asked, **here}, as_json)
        else:
            _alone("spec", asked)
            if spec is None and not named:
                raise SpecError(
                    "A plan is for a spec or a question; neither is given. Say `penjing plan spec.yaml`, "
                    "`penjing plan --rows 20000 --tokens 30 --minutes 30`, or `penjing plan --audit runs`."
                )
            keys = {
                k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in named.items() if k != "set"
            }
            _plan(spec, tuple(sets or ()), {**keys, **here}, screen, as_json)


def _alone(option: str, others: dict[str, Any]) -> None:
    """Refuse what would be ignored."""
    given = [f"--{key.replace('_', '-')}" for key, value in others.items() if value is not None]
    if given:
        said = "A plan of a spec" if option == "spec" else f"`--{option}`"
        raise SpecError(f"{said} does not use {', '.join(given)}. Leave it out.")


def _plan(
    spec: Path | None, sets: tuple[str, ...], given: dict[str, Any], screen: Screen, as_json: bool
) -> None:
    from penjing.jobs.plan import plan as job

    found = job(spec, sets=sets, tell=screen.tell, **given)
    if as_json:
        print_json(found.plain())
        raise typer.Exit(0 if found.way.fits else 1)
    from penjing.jobs.prepare import span

    typer.echo(
        f"{found.machine}: {found.free_mib:,.0f} MiB free, libraries hold {found.process_mib:,.0f}\n"
        f"{found.rows:,} {found.unit}, {found.steps:,} steps, {found.tokens:,.0f} tokens\n"
    )
    head = ["way", "trains", "memory, MiB", "at most", "time", "at most", ""]
    ways = [("as asked", found.way), *((" ".join(way.sets), way) for way in found.cheaper)]
    table = [
        [
            name,
            f"{way.trainable:,} of {way.parameters:,}",
            f"{way.mib:,.0f}",
            f"{way.most_mib:,.0f}",
            span(way.seconds),
            span(way.most_s),
            "fits" if way.fits else "does not fit",
        ]
        for name, way in ways
    ]
    print_table(head, table)
    found.refuse()


def _advise(asked: dict[str, Any], as_json: bool) -> None:
    from penjing.jobs.advise import advise

    found = advise(**asked)
    if as_json:
        print_json(found.plain())
        raise typer.Exit(0 if found.take else 1)
    _print_advice(found)
    found.refuse()


def _print_advice(found: Any) -> None:
    import yaml

    from penjing.jobs.advise import said_of
    from penjing.jobs.prepare import span

    limit = "" if found.minutes is None else f", {found.minutes:g} minutes"
    typer.echo(f"{found.machine}: {found.free_mib:,.0f} MiB free{limit}\n")
    if found.options:
        head = ["base", "method", "parameters", "trains", "batch", "steps", "memory, MiB", "time", ""]
        rows = [
            [
                one.base,
                said_of(one.method),
                f"{one.parameters:,}",
                f"{one.trainable:,}",
                str(one.batch),
                f"{one.steps:,}",
                f"{one.mib:,.0f}",
                span(one.seconds),
                "fits" if one.fits else "",
            ]
            for one in found.options
        ]
    else:
        head = ["base", "parameters", "tokens", "passes", "loss to expect", "memory, MiB", ""]
        rows = [
            [
                one.base,
                f"{one.parameters:,}",
                f"{one.tokens:,.0f}",
                f"{one.passes:.2f}",
                f"{one.loss:.2f}" if one.loss < one.chance else "none: too little",
                f"{one.mib:,.0f}",
                "fits" if one.fits else "",
            ]
            for one in found.growths
        ]
    print_table(head, rows)
    if found.take:
        typer.echo(f"\ntake: {found.take}")
        typer.echo(yaml.safe_dump(found.spec, sort_keys=False).rstrip())
    for sentence in found.why:
        typer.echo(f"· {sentence}")


def _audit(folder: Path, as_json: bool) -> None:
    from penjing.jobs.audit import WITHIN, audit

    found = audit(folder)
    if as_json:
        print_json(found.plain())
        return
    head = [
        "run",
        "base",
        "method",
        "batch",
        "steps",
        "time, s",
        "forecast",
        "ratio",
        "MiB",
        "forecast",
        "ratio",
    ]
    rows = [
        [
            one.run,
            one.base,
            one.method,
            str(one.batch),
            str(one.steps),
            f"{one.seconds:,.1f}",
            f"{one.forecast_s:,.1f}",
            f"{one.time:.2f}",
            f"{one.peak_mib:,.0f}",
            f"{one.forecast_mib:,.0f}",
            f"{one.memory:.2f}",
        ]
        for one in found.runs
    ]
    print_table(head, rows)
    typer.echo("")
    ratios = {name: found.ratios(name) for name in WITHIN}
    quantiles = [key for key in ratios["time"] if key != "within"]
    table = [
        [
            name,
            *(f"{ratios[name][q]:.2f}" for q in quantiles),
            f"{ratios[name]['within']:.0%} within {limit:.0%}",
        ]
        for name, limit in WITHIN.items()
    ]
    print_table(["truth / forecast", *quantiles, ""], table)
    if found.unfinished:
        typer.echo(f"· {found.unfinished} unfinished runs are left out")


def _fit(path: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from penjing.jobs.fitted import fit_file

    found = fit_file(path)
    if as_json:
        print_json(asdict(found))
        return
    law = found.law
    typer.echo(
        f"L = {law.E:.4f} + {law.A:.4g} / N^{law.alpha:.4f} + {law.B:.4g} / D^{law.beta:.4f}\n"
        f"{found.runs} runs, told to {found.error:.2%} on average; "
        f"the best size grows as operations to the {law.beta / (law.alpha + law.beta):.3f}"
    )
