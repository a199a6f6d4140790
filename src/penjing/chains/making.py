"""One step of a chain: the bundle at hand -> a compressor, or a run that trains -> the next bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penjing import bundle as bundles
from penjing.bundle import Bundle
from penjing.chains.footing import Footing, looked_at
from penjing.compressor import Compressor, Held, Rehearsal
from penjing.data.parts import part_of
from penjing.errors import NotSupported
from penjing.jobs.news import News, Tell
from penjing.jobs.seen import FILE, keep_reference
from penjing.jobs.train import resume, tune
from penjing.models.model import Model
from penjing.models.stored import PLAIN
from penjing.plugin import Choice
from penjing.records import NO_ROWS, Part
from penjing.run import Run

KNOWN = ("format", "saves", "files", "base", "compressed", "stored")  # of a card: what a save says anew
KEPT = ("task", "data", "device", "precision", "language", "seed")  # of a run's spec, where a step trains


@dataclass(frozen=True)
class Made:
    """A step's bundle, what the compressor told of it, and whether it says its answers are unchanged; `run`
    is what trained it, where something did."""

    bundle: Bundle
    facts: Mapping[str, Any]
    exact: bool
    run: Path | None = None


def make(
    ground: Footing, at: Bundle, compressor: Compressor, step: Choice, folder: Path, key: str, tell: Tell
) -> Made:
    """The step's bundle; one that a former chain has made is opened as it is.

    Raises:
        NotSupported: the compressor refuses the model, or it trains and the bundle lies in no run.
    """
    if compressor.changes is not None:
        return _trained(ground, at, compressor, folder, tell)
    if (folder / "card.json").is_file():
        found = _known(ground, bundles.load(folder, machine=at.machine))
        last = found.card["compressed"][-1]
        tell(News("note", f"{folder.name} is there already"))
        return Made(found, last["facts"], last["exact"])
    assert compressor.shrink is not None, "a step shrinks or trains"
    held = held_of(at)
    shrunk = compressor.shrink(held, _rehearsal(ground, held, compressor))
    done = shrunk.held
    card = {name: value for name, value in at.card.items() if name not in KNOWN}
    said = {"step": step.written(), "key": key, "facts": dict(shrunk.facts), "exact": shrunk.exact}
    card |= {
        "labels": list(done.labels),
        "max_length": done.max_length,
        "compressed": [*at.card.get("compressed", []), said],
    }
    base = replace(done.base, name=at.card["base"]["name"])
    bundles.save(folder, model=done.model, base=base, saves="full", card=card)
    made = _known(ground, bundles.load(folder, machine=at.machine))
    return Made(made, shrunk.facts, shrunk.exact)


def _known(ground: Footing, bundle: Bundle) -> Bundle:
    """The bundle, with what it sees of rows kept beside it: its states and answers are its own, so drift is
    compared with those."""
    if FILE not in bundle.card["files"]:
        keep_reference(bundle, ground.rows, ground.train, seed=ground.seed)
    return bundle


def held_of(bundle: Bundle) -> Held:
    """The bundle's model loaded anew, in fp32, for a compressor to take apart."""
    own = bundles.load(bundle.folder, machine=replace(bundle.machine, precision="fp32"))
    assert isinstance(own.model, Model), "an ensemble was refused before"
    return Held(own.model, own.base, own.task, own.labels, own.card["max_length"])


def _rehearsal(ground: Footing, held: Held, compressor: Compressor) -> Rehearsal:
    """Train rows, as many as the compressor looks at, as the model at hand reads them."""
    labelled = compressor.wants == "labels"
    rows = (
        NO_ROWS
        if compressor.wants == "nothing"
        else looked_at(ground.train, compressor.rows, held.labels, every_label=labelled, seed=ground.seed)
    )
    if not len(rows):
        return Rehearsal(rows, _no_part(), ground.seed)
    names = list(held.labels)
    part = part_of(held.task, held.base, rows, names, held.max_length, labelled=True)
    return Rehearsal(rows, part, ground.seed)


def _no_part() -> Part:
    import numpy as np

    from penjing.records import Tokens

    none = np.zeros(0, np.int64)
    return Part(NO_ROWS, Tokens(none, np.zeros(1, np.int64)), none)


def _trained(ground: Footing, at: Bundle, compressor: Compressor, folder: Path, tell: Tell) -> Made:
    """A run of its own in the step's folder: begun, gone on with, or done already."""
    assert compressor.changes is not None
    if ground.spec is None:
        raise NotSupported(
            f"`{compressor.name}` trains, and needs the rows and settings of the run that made the model; "
            f"{ground.original.folder} lies in no run. Give the run's folder."
        )
    if few := [kind for kind in at.card.get("stored", {}) if kind != PLAIN]:
        kinds = ", ".join(few)
        raise NotSupported(
            f"`{compressor.name}` trains, which needs plain weights; the step before left {kinds}. Let it "
            f"come before the steps that hold weights in few bits: `{compressor.name}>int8`."
        )
    run = Run(folder)
    if not (folder / "spec.yaml").is_file():
        own, original = ground.spec.anchored().written(), str(ground.original.folder.absolute())
        spec = {key: own[key] for key in KEPT if key in own}
        spec |= {"base": str(at.folder.absolute()), **compressor.changes(held_of(at), original)}
        run = tune({**spec, "out": str(folder.parent), "name": folder.name}, tell=tell)
    elif run.state != "done":
        run = resume(folder, tell=tell)
    else:
        tell(News("note", f"{folder.name} is there already"))
    found = bundles.load(run.folder, machine=at.machine)
    return Made(found, {"trained": run.result["cost"]}, False, run.folder)
