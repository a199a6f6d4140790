"""Export: a bundle as another library reads it, kept only where it answers as the bundle does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penjing import plugin
from penjing.bundle import Bundle, load
from penjing.compressor import Held
from penjing.device import choose
from penjing.errors import NotSupported, SpecError
from penjing.exporter import Exporter, Sent
from penjing.files import new_folder, refuse_taken
from penjing.jobs.lineage import versions
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.parity import Tolerance, compare, refuse
from penjing.jobs.prepare import READING
from penjing.jobs.replay import EDGES, chosen_of, held_out
from penjing.jobs.rows_for import rows_for
from penjing.models.load import tokenizer_at
from penjing.models.model import Model
from penjing.models.padded import Run as Tables
from penjing.models.padded import StandIn, ports_of
from penjing.models.wrap import merged
from penjing.plugin import Choice
from penjing.plural import counted
from penjing.records import Rows

EXAMPLES = 24  # held-out rows that a program without penjing is tried on


@dataclass(frozen=True)
class Export:
    """What was written: its folder, the target, a line of Python that opens it, notes, and the
    certificate."""

    folder: Path
    target: str
    opens: str
    notes: tuple[str, ...]
    parity: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def export(
    run: str | Path | Bundle,
    folder: str | Path,
    *,
    to: str | Mapping[str, Any] | Choice,
    rows: str | Path | Sequence[str | Path] | None = None,
    base: str | None = None,
    tolerance: Tolerance | None = None,
    trust: Sequence[str] = (),
    dry_run: bool = False,
    tell: Tell = silent,
    **reading: Any,
) -> Export:
    """Write a bundle (or a run's best one) for another library, and keep it only where it answers the same.

    `to` is a target, such as `onnx` or `{"onnx": {"opset": 20}}`. `rows` are labelled rows to replay; the
    run's own held-out ones when not given. `reading` is as in a spec's `data` section. With `dry_run`
    everything is looked at and nothing written: `parity` is empty then.

    Raises:
        NotSupported: the target cannot hold the model, a package is missing, or what was written answers
        otherwise;
            the folder is then as it was before.
        DataError: no rows to replay. SpecError: no such target or setting. CannotWrite: no room or no right.
    """
    place = Path(folder)
    target = plugin.choice(_named(to), kind="exporters", key="to")
    exporter: Exporter = plugin.build("exporters", target)
    refuse_taken(place, "parity.json")
    where = run.folder if isinstance(run, Bundle) else run
    original = _opened(where, base, trust)
    model = original.model
    if not isinstance(model, Model):
        raise NotSupported(
            f"One model was wanted for `{target.name}`; {original!r} is an ensemble of "
            f"{len(original.card['members'])}, which no format holds as one. Export a member "
            f"(`{original.folder}"
            "/members/0`), or teach one student with `penjing compress --with distill`."
        )
    replayed, notes = _rows(original, rows, reading)
    if exporter.merges and hasattr(model.trunk, "peft_config"):
        tell(News("stage", "merging"))
    sent = sent_of(_opened(where, base, trust), merges=exporter.merges)
    told = (*notes, *exporter.fits(sent))
    opens = exporter.opens(sent).replace("{folder}", str(place))
    for note in told:
        tell(News("note", note))
    if dry_run:
        return Export(place, target.name, opens, told, {})
    with new_folder(place) as aside, torch.no_grad():
        tell(News("stage", f"writing {target.name}"))
        exporter.write(sent, aside)
        tell(News("stage", f"replaying {counted(len(replayed), 'row')} through both"))
        began = time.perf_counter()
        parity = _compared(original, sent, exporter.opened(sent, aside), aside, replayed, tolerance)
        refuse(parity, f"A folder for {target.name}")
        said = _said(original, sent, exporter, aside, replayed)
        found = {
            "target": target.written(),
            "opens": opens,
            "replayed_s": round(time.perf_counter() - began, 3),
            "libraries": versions(*exporter.needs),
            **said,
        }
        parity.keep(aside, **found)
    return Export(place, target.name, opens, told, {**parity.facts, **found, "held": parity.held})


def _named(to: str | Mapping[str, Any] | Choice) -> Any:
    """The target as the folder of exporters names it: `sentence-transformers` is a file with an
    underscore."""
    if isinstance(to, Choice):
        return to
    if isinstance(to, str):
        return to.replace("-", "_") if "." not in to else to
    return {str(name).replace("-", "_"): value for name, value in to.items()}


def _opened(run: str | Path, base: str | None, trust: Sequence[str]) -> Bundle:
    return load(run, base=base, machine=choose("cpu", "fp32"), trust=trust)


def _rows(
    bundle: Bundle, given: str | Path | Sequence[str | Path] | None, reading: Mapping[str, Any]
) -> tuple[Rows, tuple[str, ...]]:
    unknown = [key for key in reading if key not in READING]
    if unknown:
        raise SpecError(f"`{unknown[0]}` is not a way to read rows; those are {', '.join(READING)}. Mend it.")
    if given is None:
        if reading:
            named = ", ".join(f"`{key}`" for key in reading)
            raise SpecError(
                f"{named} would be ignored: how `rows` are read, and none are given. Give `--rows FILE`, or "
                "leave it out: the run's own rows are read as its spec says."
            )
        found, notes = held_out(bundle)
        return chosen_of(found), notes
    return chosen_of(rows_for(bundle, given, **reading)), ()


def sent_of(bundle: Bundle, *, merges: bool) -> Sent:
    """A bundle of one model as exporters take it; with `merges`, its adapter is added into the trunk, which
    is used up by that."""
    model: Any = bundle.model
    trunk = model.trunk
    if merges and hasattr(trunk, "peft_config"):
        with torch.no_grad():
            trunk = merged(trunk)
    made = Model(trunk, model.head, model.way).eval().requires_grad_(False)
    held = Held(
        made, replace(bundle.base, trunk=trunk), bundle.task, bundle.labels, bundle.card["max_length"]
    )
    return Sent(held, bundle.card, bundle.folder)


def _compared(
    original: Bundle, sent: Sent, run: Tables, folder: Path, rows: Rows, tolerance: Tolerance | None
) -> Any:
    """What was written in the original's place, read by its own tokenizer."""
    held = sent.held
    ports = ports_of(held.base, held.model.trunk, held.model.head)
    base = original.base
    if (folder / "tokenizer_config.json").is_file():
        base = replace(base, tokenizer=tokenizer_at(folder))
    stand_in: Any = StandIn(base, held.model.head, ports, run)
    artefact = replace(original, model=stand_in, base=base)
    return compare(original, artefact, rows, tolerance=tolerance, judged=not ports.speaks)


def _said(original: Bundle, sent: Sent, exporter: Exporter, folder: Path, rows: Rows) -> dict[str, Any]:
    """The words of what answers without penjing, beside the bundle's own; empty where nothing does.

    Raises:
        NotSupported: they differ.
    """
    if exporter.says is None:
        return {}
    pairs = original.task.name == "pair"
    asked: list[Any] = [[*item[:2]] for item in rows.items or ()] if pairs else rows.texts
    asked = [*asked[:EXAMPLES], *([one, one] if pairs else one for one in EDGES.values() if one or not pairs)]
    ours, theirs = original.predict(asked), exporter.says(sent, folder, asked)
    for given, one, other in zip(asked, ours, theirs, strict=True):
        if not _same(one, other):
            raise NotSupported(
                f"A program that answers as {original!r} does was wanted; of {str(given)[:80]!r} it says "
                f"{str(other)[:200]}, the bundle {str(one)[:200]}. Nothing is kept; export to `onnx` instead."
            )
    return {"said_without_penjing": len(asked)}


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two answers are the same in words, and in numbers to a thousandth."""
    if isinstance(ours, dict):
        return (
            isinstance(theirs, dict)
            and ours.keys() == theirs.keys()
            and all(_same(value, theirs[key]) for key, value in ours.items())
        )
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, float):
        return abs(ours - theirs) <= 1e-3 * max(1.0, abs(ours))
    return bool(ours == theirs)
