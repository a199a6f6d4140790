"""Everything that can go wrong, looked at before a model is loaded; and what a batch really holds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing import plugin
from penjing import spec as specs
from penjing.data import clean
from penjing.device import choose
from penjing.errors import PenjingError
from penjing.jobs.news import Tell, silent
from penjing.jobs.prepare import n_steps, rows_of, task_of
from penjing.models.load import find
from penjing.spec import Spec


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `note` (worth knowing) or `error` (the job would stop here)."""

    state: str
    about: str
    text: str


def check(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> list[Finding]:
    """Look at spec, plug-ins, machine, output folder, base's files and rows; loads no model.

    Every error is found in one go where it can be: a bad column does not hide a missing base.

    Raises:
        SpecError: the spec itself cannot be read.
    """
    spec = specs.read(source, sets=sets, **keywords)
    found = [Finding("ok", "spec", "every key and setting is known")]

    def look(about: str, job: Any) -> Any:
        try:
            return job()
        except PenjingError as error:
            found.append(Finding("error", about, str(error)))
        return None

    task = look("task", lambda: task_of(spec))
    look("method", lambda: plugin.build("methods", spec.method))
    for technique in spec.techniques:
        look(f"technique {technique.name}", lambda t=technique: plugin.build("techniques", t))
    machine = look("machine", lambda: choose(spec.device, spec.precision))
    if machine:
        found.append(
            Finding("ok", "machine", f"{machine.device}, {machine.precision}, {machine.threads} threads")
        )
        found.extend(Finding("note", "machine", note) for note in machine.notes)
    folder = look("base", lambda: find(spec.base))
    if folder:
        found.append(Finding("ok", "base", f"{spec.base}: {folder}"))
    found.append(_output(spec))
    data = look("rows", lambda: rows_of(spec, task, tell)) if task else None
    if data:
        steps = n_steps(spec, len(data.train))
        sizes = f"{len(data.train):,} train, {len(data.valid):,} valid"
        sizes += f", {len(data.test):,} test" if data.test is not None else ""
        found.append(Finding("ok", "rows", f"{sizes} rows, {len(data.names)} labels; {steps:,} steps"))
        found.extend(Finding("note", "rows", note) for note in data.notes)
        parts = {
            "train": data.train,
            "valid": data.valid,
            **({"test": data.test} if data.test is not None else {}),
        }
        found.extend(Finding("note", "rows", text) for text in clean.remarks(clean.summary(parts)))
    return found


def _output(spec: Spec) -> Finding:
    place = Path(spec.out)
    standing = next((p for p in (place, *place.resolve().parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(standing).free / 2**20
    import os

    if not os.access(standing, os.W_OK):
        return Finding("error", "out", f"{standing} cannot be written to. Give another folder with `out:`.")
    if free < 1024:
        return Finding(
            "note",
            "out",
            f"{standing} has {free:,.0f} MiB free; a run of a small base takes a few hundred MiB.",
        )
    return Finding("ok", "out", f"{place} can be written, {free:,.0f} MiB free")


@dataclass(frozen=True)
class Shown:
    """One row as the model sees it: tokens, which of them are learned from, and the target."""

    where: str
    tokens: list[str]
    learned: list[bool]
    target: str


def show_batch(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    rows: int = 4,
    **keywords: Any,
) -> list[Shown]:
    """The first rows of the first batch: needs the base's tokenizer, but not its weights."""
    from transformers import AutoTokenizer

    from penjing.data.batches import order

    spec = specs.read(source, sets=sets, **keywords)
    task = task_of(spec)
    data = rows_of(spec, task)
    tokenizer = AutoTokenizer.from_pretrained(find(spec.base), trust_remote_code=False)
    limit = spec.data.max_length or min(512, tokenizer.model_max_length)
    lengths = np.array([len(t) for t in data.train.texts])
    first = order(lengths, batch=spec.train.batch, seed=spec.seed, epoch=0, group=spec.train.group_by_length)[
        0
    ][:rows]
    shown = []
    for row in first:
        ids = tokenizer(data.train.texts[row], truncation=True, max_length=limit)["input_ids"]
        target = ", ".join(data.train.labels[row]) or "no label"
        shown.append(
            Shown(data.train.where(row), tokenizer.convert_ids_to_tokens(ids), [False] * len(ids), target)
        )
    return shown
