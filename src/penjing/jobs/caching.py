"""Whether a run keeps what its frozen layers make of the rows, and doing so (engine/trunk.py)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penjing.engine import trunk
from penjing.errors import NotSupported, WontFit
from penjing.files import CannotWrite
from penjing.jobs.news import News, Tell
from penjing.keys import TrainSpec
from penjing.models.model import Model
from penjing.records import Technique, Tokens


def with_kept(
    settings: TrainSpec,
    model: Model,
    techniques: Sequence[Technique],
    parts: Sequence[Tokens],
    *,
    passes: float,
    tell: Tell,
) -> tuple[list[Tokens], dict[str, float]]:
    """The parts with what the model's frozen layers make of their rows, where that is kept; and what it cost:
    `layers` and `seconds`, empty where nothing is kept. `passes`: how often training goes over the rows.

    Raises:
        NotSupported, WontFit, CannotWrite: `train.trunk_cache: true` asks for what cannot be.
    """
    if why_not(settings, model, techniques, passes):
        return list(parts), {}
    began = time.perf_counter()
    total, done = sum(len(part) for part in parts), 0

    def progress(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        tell(News("progress", "frozen layers", done, total))

    try:
        kept = trunk.keep(
            model,
            parts,
            most_bytes=most_bytes(settings),
            tell=lambda sentence: tell(News("note", sentence)),
            progress=progress,
        )
    except (WontFit, CannotWrite) as error:
        if settings.trunk_cache is True:
            raise
        tell(News("note", f"{error} So they are run at every step, with the same result."))
        return list(parts), {}
    assert model.frozen is not None
    return kept, {"layers": model.frozen.depth, "seconds": time.perf_counter() - began}


def most_bytes(settings: TrainSpec) -> int:
    """What the cache may hold."""
    return int(settings.cache_gib * 2**30)


def why_not(settings: TrainSpec, model: Model, techniques: Sequence[Technique], passes: float) -> str:
    """Why a run keeps nothing of its frozen layers; empty where it does.

    Raises:
        NotSupported: it cannot, and `train.trunk_cache: true` says that it must.
    """
    if settings.trunk_cache is False:
        return "`train.trunk_cache` is false"
    hindrance = _hindrance(model, techniques)
    if hindrance and settings.trunk_cache is True:
        raise NotSupported(
            f"`train.trunk_cache` is true: the states of frozen layers were to be kept; {hindrance}. Leave "
            f"it at `auto`, or take a method that leaves the lowest layers alone, such as `top`."
        )
    if settings.trunk_cache == "auto" and passes <= 1:
        return "every row is seen once"
    return hindrance


def _hindrance(model: Model, techniques: Sequence[Technique]) -> str:
    if model.frozen is None:
        return "something trains in the lowest layer or below it"
    if model.frozen.reason:
        return model.frozen.reason
    makers = [t.name for t in techniques if t.backward]
    return f"`{makers[0]}` changes what enters the layers" if makers else ""
