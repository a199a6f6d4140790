"""Pretrain: a corpus or images, a base (a preset to grow, or weights to go on with) and an objective -> a
run.

It is tuning without labels: the same spec, loop, resume and run folder. What is grown is a base for every
other job: `base: runs/NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing import plugin
from penjing import spec as specs
from penjing.errors import SpecError
from penjing.jobs.bases import base_of
from penjing.jobs.news import Tell, silent
from penjing.jobs.train import tune
from penjing.run import Run
from penjing.spec import Spec

USUAL = {"encoder": "masked", "decoder": "causal", "encoder-decoder": "span", "images": "masked_image"}


def pretrain(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> Run:
    """Learn a base's language from text, or its sight from images, and return the finished Run.

    `source` and keywords are as in `tune`: `pretrain(base="bert-mini", tokenizer="tok/", train="corpus/")`.
    Without `task` it is masked modelling for an encoder, causal for a decoder, spans for both in one, masked
    images for a ViT.

    Raises:
        SpecError, DataError: what was asked for or the corpus is not usable.
        NotSupported, WontFit, CannotWrite, TrainingFailed: the machine, the base, the disk or the training.
    """
    return tune(asked(source, sets=sets, **keywords), tell=tell)


def asked(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    **keywords: Any,
) -> Spec:
    """The spec of a pretraining, with the objective that suits the base where none is named.

    Raises:
        SpecError: as `spec.read`, or the task is none that learns from text alone.
    """
    given = specs.laid(source, sets=sets, **keywords)
    if given.get("task") is None:
        first = specs.read({**given, "task": "masked"})
        base = base_of(first, "meta", whole=True)
        given["task"] = USUAL["images" if base.way.sight else base.kind]
    spec = specs.read(given)
    if "." not in spec.task.name and spec.task.name not in plugin.found("objectives"):
        raise SpecError(
            f"`task` must be an objective, which learns without labels; it is `{spec.task.name}`. Take one "
            f"of {', '.join(plugin.found('objectives'))}, or `penjing tune` for tasks with labels."
        )
    return spec
