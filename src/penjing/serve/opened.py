"""Opening a version: everything that could make it answer wrongly is looked at first, and refuses it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from penjing import plugin
from penjing.bundle import Bundle, load
from penjing.bundle_card import chosen, read_card
from penjing.bundle_parts import machine_of
from penjing.device import Machine
from penjing.errors import NotSupported
from penjing.models import encdec
from penjing.models.load import Base
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.plugin import choice
from penjing.serve import golden
from penjing.serve.registry import Version
from penjing.trust import opening


@dataclass(frozen=True, eq=False)
class Opened:
    """A version that may be asked. What its requests share a pass with is decided by `lanes`."""

    version: Version
    bundle: Bundle

    @property
    def about(self) -> dict[str, Any]:
        """What every answer says of who gave it."""
        return {"name": self.version.name, "version": self.version.number, "sha256": self.version.sha256}

    @property
    def runs_packed(self) -> bool:
        """Whether its trunk can be run for several requests at once, apart from its head."""
        model = self.bundle.model
        return isinstance(model, Model) and not encdec.is_whole(model.trunk)


class Bases:
    """Bases in memory, each held once: bundles over one borrow its weights."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, bool], Base] = {}
        self._machines: dict[tuple[str, str], Machine] = {}
        self._lock = Lock()

    def machine(self, place: Path, device: str) -> Machine:
        """Where and how the bundle runs; found out once for each precision."""
        card = read_card(place)
        key = (device, str(card.get("precision")))
        with self._lock:
            if key not in self._machines:
                self._machines[key] = machine_of(device, None, card)
            return self._machines[key]

    def under(self, place: Path, machine: Machine, trust: Sequence[str]) -> dict[str, Base]:
        """The base that a bundle is over, by its SHA-256; opened where it is not yet. Empty where the bundle
        holds all its weights, or its base is not the one it was made over (which `load` then says)."""
        card = read_card(place)
        if card["saves"] in ("full", "ensemble"):
            return {}
        with opening(place, trust):
            whole = plugin.build("tasks", choice(card["task"], kind="tasks", key="task")).whole
        sha256 = card["base"]["sha256"]
        with self._lock:
            if (sha256, whole) not in self._held:
                try:
                    found = load_base(card["base"]["name"], device=machine.device, whole=whole)
                except NotSupported:
                    return {}
                if found.sha256 != sha256:
                    return {}
                self._held[sha256, whole] = found
            return {sha256: self._held[sha256, whole]}

    def keep(self, wanted: set[str]) -> None:
        """Let go of those whose SHA-256 is not among these."""
        with self._lock:
            self._held = {key: base for key, base in self._held.items() if key[0] in wanted}


def prove(folder: Path, *, bases: Bases, device: str = "auto", trust: Sequence[str] = ()) -> dict[str, Any]:
    """What a bundle answers the golden inputs, before it is registered.

    Raises:
        NotSupported: it cannot be opened or asked.
    """
    return golden.make(_load(folder, bases, device, trust))


def open_version(
    version: Version, *, bases: Bases, device: str = "auto", trust: Sequence[str] = ()
) -> Opened:
    """A version, once it is what was registered and answers as it did.

    Raises:
        NotSupported: its card is another one, a file is not as it was saved, its base is another one, a
        tensor
            found no place, or it answers the golden inputs otherwise.
    """
    card = (version.folder / "card.json").read_bytes()
    if hashlib.sha256(card).hexdigest() != version.sha256:
        raise NotSupported(
            f"{version} was registered with SHA-256 {version.sha256[:16]}…; the card in {version.folder} is "
            "another one. A version never changes: register the bundle anew."
        )
    bundle = _load(version.folder, bases, device, trust)
    kept = version.folder / "golden.json"
    if not kept.is_file():
        raise NotSupported(
            f"{version} has no golden answers in {version.folder}, so nothing shows that it answers as it "
            "should. "
            "Register it anew with `penjing serve`."
        )
    golden.check(bundle, json.loads(kept.read_text(encoding="utf-8")))
    return Opened(version, bundle)


def _load(folder: Path, bases: Bases, device: str, trust: Sequence[str]) -> Bundle:
    machine = bases.machine(folder, device)
    return load(folder, machine=machine, trust=trust, lent=bases.under(folder, machine, trust))


def said_of(opened: Opened) -> dict[str, Any]:
    """What /v1/models tells of a version that is open."""
    card = opened.bundle.card
    return {
        "task": opened.bundle.task.name,
        "labels": opened.bundle.labels,
        "method": chosen(card, "method"),
        "base": Path(card["base"]["name"]).name,
        "base_sha256": card["base"]["sha256"],
        "max_length": card["max_length"],
        "precision": opened.bundle.machine.precision,
    }
