"""Merge: a bundle over a base -> a bundle that is one set of weights and needs no base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from penjing.bundle import Bundle, load, save
from penjing.bundle_card import chosen
from penjing.device import choose
from penjing.errors import NotSupported
from penjing.files import refuse_taken
from penjing.jobs.seen import hand_on
from penjing.models.model import Model
from penjing.models.wrap import merged


def merge(
    run: str | Path, folder: str | Path, *, base: str | None = None, trust: Sequence[str] = ()
) -> Bundle:
    """Add what an adapter changes into the base's weights and write the whole to `folder`.

    It is made in fp32 from what was saved; the run and its base stay as they are. What drift is compared
    with goes along. `trust` is as in `load`.

    Raises:
        NotSupported: no bundle there, what was learned is no change of the base's weights (prompts,
        bottlenecks, ensembles), or the base is not the one it was made with.
        SpecError: the folder holds something other than a bundle. CannotWrite: no room or no right.
    """
    refuse_taken(Path(folder), "card.json")
    bundle = load(run, base=base, machine=choose("cpu", "fp32"), trust=trust)
    card = bundle.card
    model = bundle.model
    if not isinstance(model, Model) or getattr(model.trunk, "added", None) or card["saves"] == "added":
        raise NotSupported(
            f"{bundle!r} was to be merged; what `{chosen(card, 'method')}` learned is no change of one "
            f"base's weights. Use the bundle as it is."
        )
    whole = Model(merged(model.trunk), model.head, model.way)
    known = {key: value for key, value in card.items() if key not in ("format", "saves", "files")}
    with torch.no_grad():
        save(Path(folder), model=whole, base=bundle.base, saves="full", card=known)
    made = load(folder, trust=trust)
    hand_on(bundle, made)
    return made
