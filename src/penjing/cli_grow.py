"""`penjing pretrain`: grow a base from text, or teach one the language of a domain."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penjing.cli_options import (
    AsJson,
    BaseName,
    Out,
    Processes,
    Resume,
    RunName,
    Set,
    SpecFile,
    given_of,
    refuse_ignored,
)
from penjing.screen import Screen, print_grown, print_json

Corpus = Annotated[
    list[str] | None,
    typer.Option("--train", help="corpus: folder of `penjing corpus prepare`, files of text, folders, globs"),
]
Held = Annotated[
    list[str] | None, typer.Option("--valid", help="texts to validate on; held out when not given")
]


def pretrain(
    spec: SpecFile = None,
    base: BaseName = None,
    train: Corpus = None,
    valid: Held = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="of a preset to grow: a tokenizer's folder")
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="such as masked, causal; what suits the base, if none")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="updates")] = None,
    name: RunName = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    processes: Processes = None,
    sets: Set = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the whole spec, train nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn from text or images without labels: a new base, or one that knows a domain better."""
    given = given_of(base=base, train=train, valid=valid, tokenizer=tokenizer, task=objective, name=name)
    given |= given_of(seed=seed, **{"train.steps": steps})
    with Screen(as_json=as_json) as screen:
        if resume:
            refuse_ignored(given, sets=sets, dry_run=dry_run)
            from penjing.jobs.train import resume as go_on

            run = go_on(spec, out=out or "runs", processes=processes, tell=screen.tell)
        else:
            from penjing.jobs.pretrain import asked
            from penjing.jobs.pretrain import pretrain as job

            given |= given_of(out=out, processes=processes)
            if dry_run:
                _print_spec(asked(spec, sets=tuple(sets or ()), **given).written(), as_json)
                return
            run = job(spec, sets=tuple(sets or ()), tell=screen.tell, **given)
        if run.mute:  # one of several that torchrun started; the first one shows
            return
        result = run.result
    if as_json:
        print_json({"run": str(run.folder), **result})
    else:
        print_grown(run.folder, result)


def _print_spec(written: dict[str, Any], as_json: bool) -> None:
    import yaml

    if as_json:
        print_json(written)
    else:
        typer.echo(yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
