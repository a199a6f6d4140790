"""What a chain of compressors stands on: the run's model with its adapters merged, rows to look at (train
rows only) and rows to be judged on (held-out ones)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penjing.bundle import Bundle, load
from penjing.bundle_card import chosen as named
from penjing.errors import DataError, NotSupported
from penjing.files import sha256
from penjing.jobs.merge import merge
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import digest, rows_of, task_of
from penjing.jobs.rows_for import rows_for
from penjing.models.model import Model
from penjing.plural import counted
from penjing.records import NO_ROWS, Rows
from penjing.run import Run
from penjing.spec import Spec


@dataclass(frozen=True)
class Footing:
    """`run` is the folder that was asked for, `original` the model the chain begins from, merged; `start` is
    its hash, `rehearsed` and `judged` are those of `train` and `rows`."""

    run: Path
    original: Bundle
    spec: Spec | None
    train: Rows
    rows: Rows
    start: str
    rehearsed: str
    judged: str
    out: Path
    seed: int
    language: str
    notes: tuple[str, ...] = ()


def footing(
    run: str | Path,
    *,
    out: str | Path | None = None,
    rows: str | Path | None = None,
    seed: int = 0,
    base: str | None = None,
    device: str = "auto",
    trust: Sequence[str] = (),
    merged: bool = True,
    tell: Tell = silent,
) -> Footing:
    """Open the model and read the rows; with `merged`, adapters are merged into `out/0-merged-…`.

    Raises:
        NotSupported: what was learned is no change of one base's weights (ensembles, prompts), or the task
            has no labelled rows.
        DataError: rows cannot be read, or a bundle that lies in no run is given without `rows`.
    """
    bundle = load(run, base=base, device=device, trust=trust)
    _refuse(bundle)
    home = bundle.folder.parent if (bundle.folder.parent / "spec.yaml").is_file() else None
    where = Path(out) if out is not None else (home or bundle.folder.parent) / "compressed"
    start = sha256(bundle.folder / "card.json")
    spec = Run(home).spec if home else None
    train, held, notes = _rows(bundle, home, spec, rows)
    for note in notes:
        tell(News("note", note))
    if merged and bundle.card["saves"] != "full":
        bundle = _merged(bundle, where, start, base, device, trust)
        tell(News("note", f"adapter and base are one from here on: {bundle.folder}"))
    return Footing(
        run=home or Path(run),
        original=bundle,
        spec=spec,
        train=train,
        rows=held,
        start=start,
        rehearsed=digest(train),
        judged=digest(held),
        out=where,
        seed=seed,
        language=spec.language if spec else "en",
        notes=notes,
    )


def _refuse(bundle: Bundle) -> None:
    model = bundle.model
    if not isinstance(model, Model) or getattr(model.trunk, "added", None) or bundle.card["saves"] == "added":
        several = bundle.card["saves"] == "ensemble"
        beside = f"has what `{named(bundle.card, 'method')}` adds to a base"
        raise NotSupported(
            f"One set of weights to compress was wanted; {bundle!r} "
            f"{'is several models' if several else beside}. Tune with `lora` or `full`, or let one model "
            "learn from it."
        )
    if bundle.task.feed or not bundle.task.learns:
        raise NotSupported(
            f"A model tuned for a task was wanted, whose answers can be judged; {bundle!r} is of "
            f"`{bundle.task.name}`. Tune it first, then compress."
        )


def _merged(
    bundle: Bundle, out: Path, start: str, base: str | None, device: str, trust: Sequence[str]
) -> Bundle:
    """The merged bundle, made once for each original."""
    folder = out / f"0-merged-{start[:8]}"
    if not (folder / "card.json").is_file():
        merge(bundle.folder, folder, base=base, trust=trust)
    return load(folder, device=device, trust=trust)


def _rows(
    bundle: Bundle, home: Path | None, spec: Spec | None, given: str | Path | None
) -> tuple[Rows, Rows, tuple[str, ...]]:
    """Train rows, rows to be judged on, and what is to be told of them."""
    notes: list[str] = []
    train, held = NO_ROWS, None
    if spec is not None and home is not None:
        data = rows_of(spec, task_of(spec))
        train, held = data.train, data.valid
        known = Run(home).read("lineage.json").get("data", {})
        if known and known.get("train", {}).get("sha256") != digest(train):
            notes.append("the run's train rows have changed since it was made")
    if given is not None:
        held = rows_for(bundle, str(given))
        bundle.task.encode(held, bundle.labels)
    if held is None:
        raise DataError(
            f"Labelled rows to judge every step on were wanted; the bundle {bundle.folder} lies in no run "
            "that says where its rows are. Give some with `--rows FILE` (in Python `rows=`)."
        )
    if not len(train):
        if len(held) < 2:
            raise DataError(
                f"Rows to look at, and others to judge on, were wanted; no train rows are known, and `rows` "
                f"holds {len(held)}. Give two or more, or the folder of the run that made the model."
            )
        half = np.arange(len(held)) % 2 == 0  # calibration rows must not be those that judge
        train, held = held.take(np.flatnonzero(half)), held.take(np.flatnonzero(~half))
        notes.append(f"no train rows are known: {counted(len(train), 'row')} of `rows` are looked at instead")
    whose = "given" if given is not None else "the run's validation rows"
    notes.append(
        f"steps look at train rows ({len(train):,}); they are judged on {len(held):,} rows ({whose})"
    )
    return train, held, tuple(notes)


def looked_at(train: Rows, n: int | None, labels: Sequence[str], *, every_label: bool, seed: int) -> Rows:
    """`n` of the rows (None: all), drawn by the seed; with `every_label` one of each label among them.

    Raises:
        DataError: a label has no row.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    if every_label and labels:
        first: dict[str, int] = {}
        for row in order:
            for name in train.labels[row]:
                first.setdefault(name, int(row))
        missing = [name for name in labels if name not in first]
        if missing and any(train.labels):
            raise DataError(
                f"Rows of each of the {len(labels)} labels were wanted to look at; of `{missing[0]}` there "
                f"is none ({len(missing)} such). Give the run's train rows back, or take a step that needs "
                "no labels."
            )
        lead = np.unique(np.fromiter(first.values(), dtype=np.int64))
        order = np.concatenate([lead, order[~np.isin(order, lead)]])
    taken = order if n is None else order[: max(n, 1)]
    return train.take(np.sort(taken))
