"""A bundle that embeds texts, written as sentence-transformers reads it; `export` does the same and proves
it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.bundle import Bundle, load
from penjing.device import choose
from penjing.errors import NotSupported
from penjing.exporters.sentence_transformers import write
from penjing.files import new_folder, refuse_taken
from penjing.jobs.export import sent_of
from penjing.models.model import Model


def sentences(
    run: str | Path | Bundle, folder: str | Path, *, base: str | None = None, trust: Sequence[str] = ()
) -> Path:
    """Write a bundle's trunk (adapters added into its weights), tokenizer and pooling as a folder that
    `SentenceTransformer(folder)` opens.

    Raises:
        NotSupported: the bundle makes no vectors, or what its method learned is no change of the base's
            weights.
        SpecError: the folder holds something other than an earlier one. CannotWrite: no room or no right.
    """
    place = Path(folder)
    refuse_taken(place, "modules.json")
    bundle = (
        run if isinstance(run, Bundle) else load(run, base=base, machine=choose("cpu", "fp32"), trust=trust)
    )
    model: Any = bundle.model if isinstance(bundle.model, Model) else None
    head: Any = getattr(model, "head", None)
    if not hasattr(head, "embed") or bundle.card["saves"] == "added":
        raise NotSupported(
            f"A model of sentences was wanted; {bundle!r} makes no vectors, or by parts that "
            f"sentence-transformers does not know. Tune with `task: embed` by `full`, `lora` or `top`."
        )
    with new_folder(place) as aside:
        write(sent_of(bundle, merges=True), aside)
    return place
