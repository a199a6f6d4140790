"""Pattern-exploiting training's last stage (Schick & Schütze 2021, arXiv 2001.07676, section 3.3): models of
patterns, tuned on few labelled rows, say together what unlabelled rows are; a plain classifier learns from
that.

The soft label of a row is softmax(mean over teachers of log p / T), T = 2 in the paper. Left behind are
`NAME-teachers/` (their runs, soft.jsonl, valid.jsonl) and the run `NAME`, whose spec.yaml repeats the
classifier's training from these files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing import run as runs
from penjing import spec as specs
from penjing.bundle import load
from penjing.chains.trial import carried
from penjing.data.read import read
from penjing.device import choose
from penjing.errors import SpecError
from penjing.files import write_text
from penjing.jobs.job import Job
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import Data, bound, load_base, rows_of, task_of
from penjing.jobs.train import same_rows, tune
from penjing.models.load import copy_of
from penjing.run import Run
from penjing.spec import Spec


def pet(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    unlabelled: str | Path | Sequence[str | Path],
    name: str,
    seeds: int = 3,
    temperature: float = 2.0,
    student: Mapping[str, Any] | None = None,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> Run:
    """Teach a classifier by models of a `few_shot` spec; returns the classifier's run.

    Every template that the task names (else all of the base's own together) makes a teacher for each of
    `seeds` seeds, all on the same drawn rows. `unlabelled` are rows without labels; `student` is laid over
    the classifier's spec, such as `{"method": "lora"}`. The rest is as in `spec.read`.

    A call that was killed goes on where it was when it is made again.

    Raises:
        SpecError: the task is not `few_shot`, a number is out of range, `student` is no spec, or the name is
            taken by a run or by teachers of another spec.
        DataError: rows are not usable. NotSupported: teachers of that name learned from other rows.
    """
    spec = specs.read(source, sets=sets, **keywords)
    _check(spec, seeds, temperature)
    texts = read(unlabelled, labelled=False).texts
    folder = Path(spec.out) / f"{name}-teachers"
    machine, task = choose(spec.device, spec.precision), task_of(spec)
    data = rows_of(spec, task, tell)
    learner = _learner(spec, data.names, folder, name, student or {})
    runs.refuse_named(learner)
    teachers = _teachers(spec, seeds)
    for number, one in enumerate(teachers, 1):
        _refuse_other(folder / f"{number:03d}", one, data)
    base, logs = load_base(spec, machine, tell), []
    for number, one in enumerate(teachers, 1):
        tell(News("stage", f"teacher {number} of {len(teachers)}"))
        place = folder / f"{number:03d}"
        own = copy_of(base)
        job = Job(one, bound(task_of(one), own, data), machine, data, own, silent)
        it = carried(place, job)
        found = load(place, machine=machine).probabilities(texts)
        logs.append(np.log(np.maximum(found, 1e-12)))
        tell(News("score", f"teacher {number}: {it.watch.best:.4f} on validation rows"))
    names, valid = data.names, data.valid
    _write(
        folder / "soft.jsonl",
        [
            {"text": text, "probabilities": dict(zip(names, row.tolist(), strict=True))}
            for text, row in zip(texts, softened(np.stack(logs), temperature), strict=True)
        ],
    )
    _write(
        folder / "valid.jsonl",
        [{"text": text, "label": own[0]} for text, own in zip(valid.texts, valid.labels, strict=True)],
    )
    return tune(learner, tell=tell)


def _learner(spec: Spec, labels: list[str], folder: Path, name: str, student: Mapping[str, Any]) -> Spec:
    """The classifier's spec."""
    data = {"train": str(folder / "soft.jsonl"), "valid": str(folder / "valid.jsonl"), "test": spec.data.test}
    return specs.read(
        {
            "base": spec.base,
            "task": {"soft": {"labels": labels}},
            **{key: getattr(spec, key) for key in ("device", "precision", "out", "seed", "language")},
            **student,
            "data": {**data, **student.get("data", {})},
            "name": name,
        }
    )


def _refuse_other(place: Path, teacher: Spec, data: Data) -> None:
    """See that what stands in a teacher's folder is this teacher, begun on these rows."""
    run = Run(place)
    if not (place / "spec.yaml").is_file():
        return
    own, asked = run.spec.written(), teacher.anchored().written()
    other = [key for key in asked if key not in ("out", "name") and own.get(key) != asked[key]]
    if other:
        raise SpecError(
            f"{place} holds a teacher whose `{other[0]}` is {own.get(other[0])!r}; it is {asked[other[0]]!r} "
            "here. Give another `name`, or take that folder away."
        )
    same_rows(run, data.sources)


def softened(logs_MSC: np.ndarray, temperature: float) -> np.ndarray:
    """(S, C) soft labels of M teachers' log-probabilities: equation 3's mean, softened."""
    mean = logs_MSC.mean(0) / temperature
    raised = np.exp(mean - mean.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _teachers(spec: Spec, seeds: int) -> list[Spec]:
    """A spec for each template and seed."""
    settings = spec.task.settings
    named = settings["templates"]
    patterns: list[list[str] | None] = [[one] for one in named] if named else [None]
    return [
        specs.read(spec, task={"few_shot": {**settings, "templates": pattern}}, seed=spec.seed + i)
        for pattern in patterns
        for i in range(seeds)
    ]


def _check(spec: Spec, seeds: int, temperature: float) -> None:
    if spec.task.name != "few_shot":
        raise SpecError(
            f"Teachers are models of `task: few_shot`; the spec has `{spec.task.name}`. Set `task: few_shot`,"
            f" or tune `{spec.task.name}` by itself."
        )
    for key, value, least in (("seeds", seeds, 1), ("temperature", temperature, 1e-3)):
        if not value >= least:
            raise SpecError(f"`{key}` of `pet` must be at least {least:g}; it is {value}. 3 and 2 are usual.")


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
