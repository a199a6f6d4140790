"""Versions of models on disk, and the pointers that say which one is asked. Files only, so that any process
may promote or roll back while another serves.

A registry is a folder:
    support/
      1/ 2/ 3/        a version each: the bundle's files (hard links where the disk allows), golden.json and
                      version.json; never changed once it is there
      route.json      which version each alias points at, canary and shadow shares, what was live before
      .lock           held by whoever writes

A name is asked as `support` or `support@live`, `support@3`, or `support@staging` (an alias of one's own).
Writers take the lock and replace `route.json` in one step: readers see the old route or the new one,
whatever kills a writer and whenever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penjing.errors import NotSupported, SpecError, nearest
from penjing.files import alone, new_folder, settle, standing, sweep, write_json
from penjing.serve.asked import Unknown

LIVE = "live"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEPT = 1000  # turns of the history


@dataclass(frozen=True)
class Version:
    """One version of a model: `folder` holds the bundle, `sha256` is that of its card, which holds the
    SHA-256 of every file of the bundle and of its base."""

    name: str
    number: int
    folder: Path
    sha256: str
    source: str  # the folder it was taken from
    added: float  # Unix seconds

    def __str__(self) -> str:
        """`support@3`."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True)
class Share:
    """Part of the traffic, in 0..1, that also (shadow) or instead (canary) goes to a version."""

    version: int
    share: float


@dataclass(frozen=True)
class Route:
    """Which versions answer a name. `before` are the versions that were live, the last one last: rolling back
    returns to it. `history` is every turn, oldest first: version, at (Unix seconds), why."""

    aliases: dict[str, int] = field(default_factory=dict)
    canary: Share | None = None
    shadow: Share | None = None
    before: tuple[int, ...] = ()
    history: tuple[dict[str, Any], ...] = ()

    @property
    def live(self) -> int | None:
        """The version that answers; None before the first."""
        return self.aliases.get(LIVE)


def names(root: Path) -> list[str]:
    """Every model that has a version."""
    if not root.is_dir():
        return []
    return sorted(f.name for f in root.iterdir() if NAME.fullmatch(f.name) and (f / "route.json").is_file())


def versions(root: Path, name: str) -> list[Version]:
    """A model's versions, oldest first; none where there is no such model."""
    place = root / _checked(name)
    found = [int(f.name) for f in place.iterdir() if f.name.isdecimal()] if place.is_dir() else []
    return [_read(place / str(number)) for number in sorted(found)]


def add(
    root: Path, name: str, source: Path, *, prove: Callable[[Path], Any] | None = None, live: bool = False
) -> Version:
    """Take a bundle (or a run, whose best bundle is meant) as the next version of a model; the same bundle
    again is the version that it is already. The first version, and with `live` any that is new, becomes live.

    `prove(folder)` gives what is written into golden.json, and raises where the bundle cannot be served: then
    nothing is added.

    Raises:
        NotSupported: no bundle there. SpecError: a name that is none.
    """
    bundle = standing(source / "best" if (source / "spec.yaml").is_file() else source)
    card = bundle / "card.json"
    if not card.is_file():
        export = (bundle / "parity.json").is_file() and (bundle / "labels.json").is_file()
        raise NotSupported(
            f"A bundle was wanted in {source}; {bundle} has no card.json. "
            + (
                "It is an export, for other libraries: give the bundle that it was made of, or what `penjing "
                "compress --with onnx` (or openvino) makes of that."
                if export
                else "Give a run's folder (it holds best/) or a bundle's folder."
            )
        )
    sha256 = hashlib.sha256(card.read_bytes()).hexdigest()
    place = root / _checked(name)
    with _writing(place):
        known = versions(root, name)
        same = next((v for v in known if v.sha256 == sha256), None)
        live = live and same is None  # of an old one somebody may have let go: `point` says it again
        if same is None:
            golden = prove(bundle) if prove else None
            number = known[-1].number + 1 if known else 1
            about = {"name": name, "version": number, "sha256": sha256, "source": str(source.absolute())}
            with new_folder(place / str(number)) as aside:
                shutil.copytree(bundle, aside, copy_function=_link, dirs_exist_ok=True)
                if golden is not None:
                    write_json(aside / "golden.json", golden)
                write_json(aside / "version.json", {**about, "added": time.time()})
            same = _read(place / str(number))
        route = read_route(root, name)
        if live or route.live is None:
            _turn(place, route, LIVE, same.number, "added")
    return same


def find(root: Path, asked: str) -> tuple[Version, str]:
    """The version meant by `support`, `support@3` or `support@live`, and which way that is: an alias, or
    `pinned`.

    Raises:
        Unknown: no such model, version or alias.
    """
    name, _, which = asked.partition("@")
    known = versions(root, name) if NAME.fullmatch(name) else []
    if not known:
        raise Unknown(
            f"There is no model `{asked[:80]}` here.{nearest(name, names(root))} GET /v1/models lists them "
            "all."
        )
    number = number_of(which)
    pinned = number is not None
    if number is None:
        number = read_route(root, name).aliases.get(which or LIVE)
    found = next((v for v in known if v.number == number), None)
    if found is None:
        have = ", ".join(str(v.number) for v in known[-5:])
        raise Unknown(
            f"The model `{name}` has no version `{(which or LIVE)[:40]}`; it has {have}. Ask for one of "
            "these "
            f"(`{known[-1]}`), or for `{name}`."
        )
    return found, "pinned" if pinned else which or LIVE


def refuse_unknown(root: Path, name: str) -> None:
    """For who works at the registry itself, and may be in another folder than was meant.

    Raises:
        Unknown: it has no such model.
    """
    known = names(root)
    if name not in known:
        has = (
            f"it has {', '.join(known)}"
            if known
            else "it has none"
            if root.is_dir()
            else "there is no such folder"
        )
        raise Unknown(
            f"The model `{name[:80]}` was wanted in the registry {root}; {has}.{nearest(name, known)} Give "
            "one that it has, or another registry; `penjing serve NAME=RUN` adds a model."
        )


def number_of(which: str) -> int | None:
    """The version that `which` in `support@which` pins; None where it is an alias, or no number of any."""
    return int(which) if which.isdecimal() and len(which) < 10 else None


def read_route(root: Path, name: str) -> Route:
    """Where a model's requests go; an empty route where none is written."""
    try:
        found = json.loads((root / _checked(name) / "route.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Route()
    shares = {key: None if found[key] is None else Share(**found[key]) for key in ("canary", "shadow")}
    return Route(found["aliases"], **shares, before=tuple(found["before"]), history=tuple(found["history"]))


def point(root: Path, name: str, number: int, *, alias: str = LIVE, why: str = "promoted") -> Route:
    """Let an alias point at a version, in one step. `live` remembers what it pointed at before, and ends a
    canary or shadow of the version that is live now.

    Raises:
        Unknown: no such version. SpecError: an alias that is none.
    """
    if not NAME.fullmatch(alias) or alias.isdecimal():
        raise SpecError(
            f"An alias is a word of letters, digits and `._-` that is no number; this one is `{alias[:80]}`."
        )
    version, _ = find(root, f"{name}@{number}")
    with _writing(root / name):
        return _turn(root / name, read_route(root, name), alias, version.number, why)


def roll_back(root: Path, name: str) -> Route:
    """Let `live` point at what it pointed at before, and end a canary.

    Raises:
        Unknown: nothing was live before.
    """
    place = root / _checked(name)
    with _writing(place):
        route = read_route(root, name)
        if not route.before:
            raise Unknown(
                f"The model `{name}` has nothing to return to: {route.live or 'no version'} is the first "
                "that "
                f"was live. Point at a version instead (`{name}@N`)."
            )
        number = route.before[-1]
        route = replace(route, aliases={**route.aliases, LIVE: number}, before=route.before[:-1], canary=None)
        return _write(place, route, number, "rolled back")


def share(root: Path, name: str, kind: str, number: int | None, part: float = 0.0) -> Route:
    """Send a share of the live traffic to a version: `canary` instead of the live one, `shadow` beside it;
    None ends it.

    Raises:
        Unknown: no such version. SpecError: a share not in 0..1, or another kind.
    """
    if kind not in ("canary", "shadow") or not 0 <= part <= 1:
        raise SpecError(
            f"A canary or shadow with a share of 0 to 1 was wanted; it is `{kind[:20]}` with {part}. Say "
            "such as "
            "canary 0.1."
        )
    if number is not None:
        find(root, f"{name}@{number}")
    with _writing(root / _checked(name)):
        route = read_route(root, name)
        own = None if number is None else Share(number, float(part))
        route = replace(route, canary=own) if kind == "canary" else replace(route, shadow=own)
        return _write(
            root / name, route, number, f"{kind} {part:g}" if number is not None else f"{kind} ends"
        )


def _turn(place: Path, route: Route, alias: str, number: int, why: str) -> Route:
    before = route.before
    if alias == LIVE and route.live not in (None, number):
        before = (*before, int(route.live or 0))[-KEPT:]
    route = replace(route, aliases={**route.aliases, alias: number}, before=before)
    if alias == LIVE:
        over = [own is not None and own.version == number for own in (route.canary, route.shadow)]
        route = replace(
            route, canary=None if over[0] else route.canary, shadow=None if over[1] else route.shadow
        )
    return _write(place, route, number, why if alias == LIVE else f"{alias}: {why}")


def _write(place: Path, route: Route, number: int | None, why: str) -> Route:
    turn = {"version": number, "at": time.time(), "why": why}
    route = replace(route, history=(*route.history, turn)[-KEPT:])
    plain = {key: None if own is None else vars(own) for key, own in vars(route).items() if key in _SHARES}
    write_json(place / "route.json", {**vars(route), **plain})
    return route


_SHARES = ("canary", "shadow")


def _read(folder: Path) -> Version:
    about = json.loads((folder / "version.json").read_text(encoding="utf-8"))
    return Version(
        about["name"], about["version"], folder, about["sha256"], about["source"], float(about["added"])
    )


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise SpecError(
            "A model's name is letters, digits and `._-`, at most 64, beginning with a letter or digit; "
            "this one "
            f"is `{name[:80]}`. Give another (`NAME=FOLDER`)."
        )
    return name


def _link(source: str, target: str) -> str:
    """A hard link: bundles are replaced whole and never written into, so both stay what they are."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
    return target


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Inside, no other process writes to this model; what a killed one left is put in order."""
    with alone(place / ".lock", rights=0o644):
        sweep(place)
        for old in place.glob(".*.old"):
            settle(place / old.name[1:-4])
        yield
