"""The models that are served: which version answers a name, opened ones in memory, the others on disk.

What a registry's `route.json` says is followed within a second. A version that it names as live is opened
beside the one that answers, and takes over once it has given its golden answers: no request waits for it,
and where it is refused the old one stays.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penjing.errors import NotSupported, PenjingError
from penjing.serve import registry
from penjing.serve.asked import Closing, Unknown
from penjing.serve.lanes import Lanes
from penjing.serve.opened import Bases, Opened, open_version
from penjing.serve.registry import LIVE, Route, Version

LOG = logging.getLogger("penjing.serve")


@dataclass(frozen=True)
class Chosen:
    """The version that answers a request, by which way, and the one that sees it too."""

    version: Version
    way: str
    shadow: Version | None = None


@dataclass(frozen=True)
class _Name:
    """What is known of a model: as the registry has it, the route in force, the one that this was made of,
    and when its files were changed."""

    versions: dict[int, Version]
    wanted: Route
    route: Route
    taken: Route
    stamp: tuple[int, int]


class Models:
    """All models of a registry. hot: bundles kept open, the least lately used ones put away.

    `draw` decides who gets the canary. What is opened, put away or refused is told to `note(event, about)`.
    """

    def __init__(
        self,
        root: Path,
        *,
        hot: int = 64,
        device: str = "auto",
        trust: Sequence[str] = (),
        draw: Callable[[], float] = random.random,
        note: Callable[[str, dict[str, Any]], None] = lambda event, about: None,
    ) -> None:
        self.root, self.hot, self.lanes, self.bases = root, hot, Lanes(), Bases()
        self._device, self._trust, self._draw, self._note = device, trust, draw, note
        self._names: dict[str, _Name] = {}
        self._open: OrderedDict[tuple[str, int], Opened] = OrderedDict()
        self._refused: dict[tuple[str, int, str], str] = {}
        self._lock, self._opening = threading.RLock(), threading.Lock()

    def choose(self, asked: str) -> Chosen:
        """Who answers a name such as `support`, `support@3` or `support@live`. Costs no disk where it is
        known.

        Raises:
            Unknown: there is no such model, version or alias.
        """
        name, _, which = asked.partition("@")
        known = self._names.get(name)
        pinned = registry.number_of(which)
        if known is None or (pinned is not None and pinned not in known.versions):
            known = self.look(name, asked)
        if pinned is not None:
            number, way = pinned, "pinned"
        else:
            number, way = known.route.aliases.get(which or LIVE, 0), which or LIVE
        shadow = None
        if way == LIVE:
            canary, beside = known.route.canary, known.route.shadow
            if canary is not None and self._draw() < canary.share:
                number, way = canary.version, "canary"
            if beside is not None and self._draw() < beside.share:
                shadow = known.versions.get(beside.version)
        if number not in known.versions:
            registry.find(self.root, asked)  # says what there is
            raise Unknown(f"The model `{name}` has no version `{(which or LIVE)[:40]}` that is open yet.")
        return Chosen(known.versions[number], way, shadow)

    def look(self, name: str, asked: str = "") -> _Name:
        """Read what the registry has of a name.

        Raises:
            Unknown: nothing.
        """
        registry.find(self.root, asked or name)
        stamp = self._stamp(name)  # before what it stamps: a change in between is seen next time
        versions = {v.number: v for v in registry.versions(self.root, name)}
        wanted = registry.read_route(self.root, name)
        with self._lock:
            before = self._names.get(name)
            own = (before.route, before.taken) if before else (wanted, wanted)
            found = _Name(versions, wanted, *own, stamp)
            self._names[name] = found
        return found

    def opened(self, version: Version) -> Opened | None:
        """The version, where it is open; it counts as used."""
        key = (version.name, version.number)
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
            return found

    def open(self, version: Version) -> Opened:
        """The version, opened where it is not; takes as long as that takes.

        Raises:
            Closing: it was refused; the operator's log says why, and so does its cause.
        """
        found = self.opened(version)
        if found is not None:
            return found
        with self._opening:
            found = self.opened(version)
            return found or self._opened(version)

    def _opened(self, version: Version) -> Opened:
        key = (version.name, version.number, version.sha256)
        began = time.perf_counter()
        why = self._refused.get(key)
        if why is None:
            try:
                found = open_version(version, bases=self.bases, device=self._device, trust=self._trust)
            except Exception as error:
                why = self._refused[key] = str(error)
                if isinstance(error, PenjingError):
                    LOG.warning("%s is not served: %s", version, why)
                else:
                    LOG.exception("%s could not be opened", version)
                self._note("refused", {"model": str(version), "sha256": version.sha256, "why": why})
        if why is not None:
            raise Closing(
                f"`{version}` was refused when it was opened, so it is not served, and nothing answers in "
                "its "
                "place. The operator's log says why."
            ) from NotSupported(why)
        self.lanes.enter(found)
        with self._lock:
            self._open[version.name, version.number] = found
            away = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - self.hot)]
        seconds = time.perf_counter() - began
        self._note("opened", {"model": str(version), "sha256": version.sha256, "seconds": seconds})
        for other in away:
            self._put_away(other)
        return found

    def close(self, version: Version) -> bool:
        """Put a version away; what it took is still answered. False where it was not open."""
        with self._lock:
            found = self._open.pop((version.name, version.number), None)
        if found is not None:
            self._put_away(found)
        return found is not None

    def _put_away(self, opened: Opened) -> None:
        self.lanes.leave(opened)
        with self._lock:
            self.bases.keep({other.bundle.base.sha256 for other in self._open.values()})
        self._note("closed", {"model": str(opened.version), "sha256": opened.version.sha256})

    def forgive(self, version: Version) -> None:
        """Let a version that was refused be tried again."""
        self._refused.pop((version.name, version.number, version.sha256), None)
        with self._lock:
            known = self._names.get(version.name)
            if known is not None:  # a canary or shadow that was left out is taken up again
                self._names[version.name] = replace(known, taken=known.route)

    def route(self, name: str) -> Route:
        """The route in force. Raises Unknown."""
        return (self._names.get(name) or self.look(name)).route

    def versions(self, name: str) -> list[Version]:
        """A model's versions, oldest first. Raises Unknown."""
        return [*self.look(name).versions.values()]

    def begin(self, name: str) -> None:
        """Open what answers a model's requests; a canary or shadow that is refused is left out of its route.

        Raises:
            Unknown: nothing does. Closing: the live version was refused.
        """
        self.open(registry.find(self.root, name)[0])
        self._take_over(name, self.look(name))

    def follow(self) -> None:
        """Take over what has changed on disk: new versions, and routes once their versions are open. A model
        whose files cannot be read stays as it is, and keeps no other from being followed."""
        for name, known in list(self._names.items()):
            stamp = self._stamp(name)
            try:
                if stamp != known.stamp:
                    known = self.look(name)
                if known.taken != known.wanted:
                    self._take_over(name, known)
            except Exception:
                LOG.exception("what the registry says of `%s` cannot be followed; its old route stays", name)
                with self._lock:  # until it changes again
                    self._names[name] = replace(self._names[name], stamp=stamp)

    def _take_over(self, name: str, known: _Name) -> None:
        route = known.wanted
        if any(key[0] == name for key in [*self._open]):
            if not self._opens(known, route.live):
                return  # the old one stays
            if route.canary is not None and not self._opens(known, route.canary.version):
                route = replace(route, canary=None)  # callers are not sent to what was refused
            if route.shadow is not None and not self._opens(known, route.shadow.version):
                route = replace(route, shadow=None)
        before = known.route.live
        with self._lock:
            self._names[name] = replace(known, route=route, taken=known.wanted)
        if before != route.live:
            self._note("live", {"model": name, "from": before, "to": route.live})

    def _opens(self, known: _Name, number: int | None) -> bool:
        if number is not None and number in known.versions:
            try:
                self.open(known.versions[number])
            except Closing:
                return False
        return True

    def listed(self) -> list[tuple[Version, Opened | None, Route]]:
        """Every version of every model, whether it is open, and its model's route in force."""
        found = []
        for name in registry.names(self.root):
            known = self._names.get(name) or self.look(name)
            for version in known.versions.values():
                found.append((version, self._open.get((name, version.number)), known.route))
        return found

    @property
    def n_open(self) -> int:
        """Bundles in memory."""
        return len(self._open)

    def _stamp(self, name: str) -> tuple[int, int]:
        """Changes whenever the model does on disk."""
        place = self.root / name
        try:
            route = (place / "route.json").stat().st_mtime_ns
        except OSError:
            route = 0
        return (route, place.stat().st_mtime_ns if place.is_dir() else 0)
