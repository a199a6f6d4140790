"""Rows of images: a folder with a sub-folder a class, a tar or zip archive of the same, or a table with a
column of paths.

A row's item is its `Picture`, its text the SHA-256 of the file: by it rows are told apart, equal images stay
on one side of a split, and leaks are found. Every file is decoded once; what is known of it is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import LABEL_NAMES
from penjing.data.fields import Columns, read_fields
from penjing.data.pixels import UNREADABLE, Picture, contents, names_in, opened, pillow, size_of
from penjing.data.sources import SPLITS
from penjing.data.split import split
from penjing.data.table import Table
from penjing.errors import DataError, SpecError, nearest
from penjing.files import CannotWrite, cache_folder, write_json
from penjing.plural import counted
from penjing.records import Rows

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".zip")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_NAMELESS = re.compile(r" <_io\.BytesIO[^>]*>")  # how Pillow calls bytes without a name, by their address
PATH_NAMES = "image image_path path file file_name filename img picture 图片 路径".split()  # noqa: SIM905


Listed = tuple[str, Picture, str]  # name in its folder or archive, where it lies, what its file is known by


@dataclass(frozen=True)
class _Entry:
    """An image before it is looked at: how people call it, where it lies, its class, its row of a table."""

    name: str
    picture: Picture
    label: str | None
    line: int = 0
    key: str = ""  # what its file is known by, as long as it is not changed


def read_images(
    source: str | Path | Sequence[str | Path],
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Images and, with `labelled`, the class of each. `archive.tar.xz#train` means a folder in an archive.

    text, label: columns of a table's paths and classes. drop_empty: broken images are left out and counted.

    Raises:
        DataError: nothing is there, an image is broken, or has no class.
        SpecError: a key that images do not use.
    """
    if delimiter is not None:
        raise SpecError(
            f"`data.delimiter` is {delimiter!r}; an image has one class, and it would be ignored. Leave it "
            "out."
        )
    names = [source] if isinstance(source, str | Path) else list(source)
    if not names:
        raise DataError("A list of sources of images was given; it is empty. Give at least one.")
    found: list[_Entry] = []
    notes: list[str] = []
    for name in map(str, names):
        entries, said = _entries(name, labelled, text, label, encoding, drop_empty)
        found += entries
        notes += said
    if not found:
        raise DataError(f"Images were wanted in {names[0]}; it holds none ({', '.join(SUFFIXES[:4])}, …).")
    return _rows(found, notes, labelled, drop_empty, kept=str(names[0]))


def held_out(
    train: Rows, valid: Rows | None, names: list[str], share: float, seed: int
) -> tuple[Rows, Rows, tuple[str, ...]]:
    """Validation images set aside where the spec names none; equal files stay on one side."""
    if valid is not None:
        return train, valid, ()
    groups = np.unique(train.texts, return_inverse=True)[1]
    kept, held = split(train, share=share, seed=seed, groups=groups)
    are = counted(len(held), "train image is", "train images are")
    note = f"{are} held out of {len(train):,} for validation (`data.valid_share`)"
    return train.take(kept), train.take(held), (note,)


def given_images(inputs: Sequence[Any]) -> Rows:
    """Images that somebody gives by hand as rows: paths, encoded bytes, Pillow images or (H, W, 3) uint8.

    Raises:
        DataError: one is none of these, or cannot be decoded.
    """
    entries = []
    for number, one in enumerate(inputs, 1):
        if isinstance(one, str | Path):
            path = Path(one).expanduser()
            if not path.is_file():
                there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise DataError(
                    f"An image was wanted at {path} (item {number} of {len(inputs)}); there is no such file."
                    f"{nearest(path.name, there)} Give paths of images."
                )
            entries.append(_Entry(str(one), Picture(str(path)), None))
        else:
            entries.append(_Entry(f"image {number}", Picture("", data=_encoded(one, number)), None))
    return _rows(entries, [], labelled=False, drop_empty=False)


def _encoded(image: Any, number: int) -> bytes:
    if isinstance(image, bytes):
        return image
    pil = pillow()
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        image = pil.Image.fromarray(image)
    if not isinstance(image, pil.Image.Image):
        raise DataError(
            "`predict` takes images: paths, bytes of a file, Pillow images or arrays (H, W, 3) of uint8; "
            f"item {number} is {type(image).__name__} {str(image)[:60]!r}. Make it one of them."
        )
    stream = io.BytesIO()
    image.save(stream, "PNG" if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF")
    return stream.getvalue()


def _entries(
    name: str, labelled: bool, text: str | None, label: str | None, encoding: str | None, drop_empty: bool
) -> tuple[list[_Entry], list[str]]:
    """The images of one source, before they are looked at, and notes."""
    path, inner = Path(name).expanduser(), ""
    if not path.exists() and "#" in name:
        name, _, inner = name.rpartition("#")
        path = Path(name).expanduser()
    plain = path.name.lower()
    if not path.exists():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"Images were wanted at {name}; there is nothing.{nearest(path.name, there)} Give a folder with "
            "a sub-folder a class, a tar or zip archive of one, or a table with a column of paths."
        )
    if not path.is_dir() and plain.endswith(TABLES):
        return _of_table(path, labelled, text, label, encoding, drop_empty)
    given = next((k for k, v in (("text", text), ("label", label), ("encoding", encoding)) if v), None)
    if given:
        raise SpecError(
            f"`data.{given}` says how a table is read; {name} is none, and it would be ignored. Leave it out."
        )
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        listed = [(p.relative_to(path).as_posix(), Picture(str(p)), _stat(p)) for p in files]
        return _by_class(name, listed, inner, labelled)
    if plain.endswith(ARCHIVES):
        stamp = _stat(path)
        listed = [(m, Picture(str(path), m), f"{stamp}\0{m}") for m in names_in(str(path))]
        return _by_class(name, listed, inner, labelled)
    if plain.endswith(SUFFIXES):
        if labelled:
            raise DataError(
                f"Classes were wanted; {name} is one image, and has none. Give a folder of classes."
            )
        return [_Entry(name, Picture(str(path)), None, key=_stat(path))], []
    raise DataError(
        f"Images were wanted in {name}; its suffix is that of no image ({', '.join(SUFFIXES[:4])}, …), no "
        f"archive ({', '.join(ARCHIVES[:3])}, …, .zip) and no table ({', '.join(TABLES[:3])}, …)."
    )


def _by_class(name: str, listed: list[Listed], inner: str, labelled: bool) -> tuple[list[_Entry], list[str]]:
    """Images by the folder that each lies in, below whatever folders hold them all."""
    listed = [(m.removeprefix("./"), p, key) for m, p, key in listed]
    hidden = lambda m: any(part.startswith((".", "__MACOSX")) for part in m.split("/"))  # noqa: E731
    shown = [one for one in listed if not hidden(one[0])]
    images = [one for one in shown if one[0].lower().endswith(SUFFIXES)]
    notes = []
    if len(images) < len(shown):
        other = next(one[0] for one in shown if not one[0].lower().endswith(SUFFIXES))
        are = counted(len(shown) - len(images), "file is", "files are")
        notes.append(f"{name}: {are} no image by name and left out, such as {other}")
    images = _inside(name, images, inner)
    _refuse_splits(name, {m.split("/")[0] for m, *_ in images if "/" in m})
    bare = [m for m, *_ in images if "/" not in m]
    if labelled and bare:
        raise DataError(
            f"{name}: the folder that an image lies in was to be its class; {bare[0]} lies in none "
            f"({len(bare):,} of {len(images):,} are so). Put each into a folder named by its class."
        )
    return [_Entry(m, p, m.split("/")[0] if labelled else None, key=key) for m, p, key in images], notes


def _inside(name: str, images: list[Listed], inner: str) -> list[Listed]:
    """The images of the folder `inner`, by their names in it, below folders that hold all and folders
    again.
    """
    parts = inner.strip("/").split("/") if inner else []
    while images:
        tops = sorted({m.split("/")[0] for m, *_ in images})
        if parts and parts[0] in tops:
            first = parts.pop(0)
        elif len(tops) == 1 and all(m.count("/") >= 2 for m, *_ in images):
            first = tops[0]
        elif parts:
            raise DataError(
                f"The folder `{inner}` was wanted in {name}; it holds {', '.join(tops[:8])}."
                f"{nearest(parts[0], tops)}"
            )
        else:
            break
        images = [(m.split("/", 1)[1], p, key) for m, p, key in images if m.startswith(first + "/")]
    return images


def _refuse_splits(name: str, tops: set[str]) -> None:
    splits = sorted(top for top in tops if top.lower() in SPLITS)
    if splits and len(splits) == len(tops):
        way = f"{name.rstrip('/')}/{splits[-1]}" if Path(name).is_dir() else f"{name}#{splits[-1]}"
        raise DataError(
            f"{name} holds the parts {', '.join(splits)}; one was wanted. Give one, such as {way}."
        )


def _of_table(
    path: Path, labelled: bool, text: str | None, label: str | None, encoding: str | None, drop_empty: bool
) -> tuple[list[_Entry], list[str]]:
    """Paths of a table's column, relative to its own folder, and the classes beside them."""

    def find(table: Table) -> Columns:
        image = _column(table, text, PATH_NAMES, "paths of images", "text")
        own = _column(table, label, LABEL_NAMES, "classes", "label") if labelled else None
        said = f"{table.name}: paths from column `{image}`" + (f", classes from `{own}`" if own else "")
        return Columns((image,), (own,) if own else (), (said,))

    rows = read_fields(
        str(path), find, text=text, label=label, encoding=encoding, drop_empty=drop_empty, labelled=labelled
    )
    entries = []
    for i, written in enumerate(rows.texts):
        place = path.parent / written
        if not place.is_file():
            raise DataError(
                f"{rows.where(i)}: an image was wanted at {written!r}; {place} is no file. Paths are "
                "relative to the table's own folder."
            )
        own_label = rows.labels[i][0] if labelled else None
        entries.append(
            _Entry(
                f"{path.name}: {written}", Picture(str(place)), own_label, int(rows.lines[i]), _stat(place)
            )
        )
    return entries, list(rows.notes)


def _column(table: Table, asked: str | None, usual: Sequence[str], what: str, key: str) -> str:
    if asked is not None:
        if asked not in table.columns:
            raise DataError(
                f"{table.name}: a column `{asked}` with {what} was wanted; there is "
                f"{', '.join(table.columns)}.{nearest(asked, table.columns)}"
            )
        return asked
    low = {name.lower(): name for name in reversed(table.columns)}
    found = next((low[name] for name in usual if name in low), None)
    if found is None:
        raise DataError(
            f"{table.name}: a column with {what} was wanted; there is {', '.join(table.columns)}. Name it "
            f"with `data.{key}`."
        )
    return found


def _rows(
    entries: Sequence[_Entry], notes: list[str], labelled: bool, drop_empty: bool, kept: str = ""
) -> Rows:
    """Every image looked at; broken ones are refused, or left out where that was asked for."""
    looked = _looked_at(entries, kept)
    broken = [
        (entry, str(about)) for entry, about in zip(entries, looked, strict=True) if isinstance(about, str)
    ]
    if broken and (not drop_empty or len(broken) == len(entries)):
        first, said = broken[0]
        advice = "" if len(broken) == len(entries) else ", or pass `drop_empty: true` to leave them out"
        raise DataError(
            f"{first.name}: an image was wanted; it cannot be decoded ({said}). {len(broken):,} of "
            f"{len(entries):,} files are so. Mend them{advice}."
        )
    if broken:
        shown = ", ".join(entry.name for entry, _ in broken[:3])
        are = counted(len(broken), "image", "images")
        notes.append(
            f"{are} of {len(entries):,} left out, as they cannot be decoded: "
            f"{shown}{', …' * (len(broken) > 3)}"
        )
    whole = [(e, about) for e, about in zip(entries, looked, strict=True) if not isinstance(about, str)]
    return Rows(
        [sha for _, (sha, *_) in whole],
        [(e.label,) if labelled and e.label is not None else () for e, _ in whole],
        tuple(e.name for e, _ in whole),
        np.arange(len(whole), dtype=np.int32),
        np.array([e.line for e, _ in whole], np.int64),
        tuple(notes),
        [Picture(e.picture.source, e.picture.member, (h, w), e.picture.data) for e, (_, h, w) in whole],
    )


About = tuple[str, int, int]  # SHA-256, height, width


def _looked_at(entries: Sequence[_Entry], kept: str) -> list[About | str]:
    """SHA-256, height and width of each image, or why it cannot be decoded; what is known already of
    unchanged files is taken from the cache.
    """
    folder = cache_folder() if kept else None
    stem = hashlib.sha256(str(Path(kept).absolute()).encode()).hexdigest()[:40]
    index = folder and folder / "images" / f"{stem}.json"
    known: dict[str, Any] = {}
    if index and index.is_file():
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(index.read_text(encoding="utf-8"))
    found: list[Any] = [known.get(e.key) if e.key else None for e in entries]
    missing = [i for i, about in enumerate(found) if about is None]
    for place, content in contents([entries[i].picture for i in missing]):
        found[missing[place]] = _about(content)
    if index and missing:
        with contextlib.suppress(CannotWrite):
            write_json(index, {e.key: about for e, about in zip(entries, found, strict=True) if e.key})
    return [about if isinstance(about, str) else tuple(about) for about in found]


def _about(content: bytes) -> list[Any] | str:
    try:
        opened(content, least=64)
    except UNREADABLE as error:
        said = _NAMELESS.sub("", f"{type(error).__name__}: {error}")
        return " ".join(said.split())[:120]
    width, height = size_of(content)
    return [hashlib.sha256(content).hexdigest(), height, width]


def _stat(path: Path) -> str:
    """What tells whether a file has changed."""
    about = path.stat()
    return f"{path.absolute()}\0{about.st_size}\0{about.st_mtime_ns}"


def image_summary(about: dict[str, Any], sets: dict[str, Rows]) -> dict[str, Any]:
    """A summary of rows (data/clean.py) without what only texts have, and with the images' sizes."""
    for name, rows in sets.items():
        own = about["sets"][name]
        for key in ("characters", "words", "script", "blank", "long"):
            own.pop(key, None)
        sizes = np.array([item.size for item in rows.items or ()]).reshape(-1, 2)
        for side, x in zip(("height", "width"), sizes.T, strict=True):
            if len(x):
                own[side] = {"min": int(x.min()), "p50": int(np.median(x)), "max": int(x.max())}
    return about
