"""Encoded images to pixels of one size, (n, C, H, W) bytes, kept memory-mapped in the user's cache.

A cache file is found by the images' own SHA-256 and how they are fitted, so that it is shared by runs and
never out of date.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.encoding import encoding_of_names
from penjing.errors import DataError, NotSupported
from penjing.files import cache_folder, drop_oldest, write_with
from penjing.records import Rows, Tokens

FEW = 256  # images that are decoded anew each time, in memory
AT_ONCE = 512  # images decoded together
MOST_BYTES = 8 << 30  # of all cached pixels; what was used longest ago makes room
# What Pillow raises of damaged files, by format.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, Warning)


@dataclass(frozen=True)
class Picture:
    """Where an image lies: a file, a member of an archive, or its bytes themselves."""

    source: str = field(repr=False)
    member: str = field(default="", repr=False)
    size: tuple[int, int] = (0, 0)  # height and width as stored, pixels
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Fit:
    """How an image of any size becomes one of `size` (height, width).

    edge: its shorter side is brought to so many pixels first, and the middle is cut out; without, it is
    stretched. resample: Pillow's number of the filter.
    """

    size: tuple[int, int]
    channels: int = 3
    edge: int | None = None
    resample: int = 2


def image_tokens(n: int, each: int) -> Tokens:
    """The places of `each` states for each of `n` images, as batches count them; no memory is taken."""
    ids = np.broadcast_to(np.zeros(1, np.uint16), (n * each,))
    return Tokens(ids, np.arange(n + 1, dtype=np.int64) * each)


def pixels_of(
    rows: Rows, fit: Fit, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray:
    """(n, C, H, W) uint8 of rows whose items are Pictures and whose texts are the images' SHA-256; mapped
    from the cache where they are many.

    Raises:
        DataError: a file is no longer as it was when the rows were read.
    """
    shape = (len(rows), fit.channels, *fit.size)
    folder = cache_folder()
    if len(rows) <= FEW or folder is None:
        return _filled(np.empty(shape, np.uint8), rows, fit, progress)
    path = folder / "images" / f"{_key(rows, fit)}.npy"
    if not path.is_file():

        def write(aside: Path) -> None:
            made = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
            _filled(made, rows, fit, progress)
            made.flush()

        write_with(path, write)
        drop_oldest(path.parent.glob("*.npy"), MOST_BYTES, (path,))
    os.utime(path)
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def _key(rows: Rows, fit: Fit) -> str:
    from PIL import __version__

    digest = hashlib.sha256(f"1 {__version__} {asdict(fit)}".encode())
    for text in rows.texts:
        digest.update(text.encode())
    return digest.hexdigest()[:40]


def _filled(into: np.ndarray, rows: Rows, fit: Fit, progress: Callable[[int, int], None]) -> np.ndarray:
    assert rows.items is not None, "rows of images keep them as items"
    done, stream = 0, contents(rows.items)

    def fill(one: tuple[int, bytes]) -> None:
        place, content = one
        if hashlib.sha256(content).hexdigest() != rows.texts[place]:
            raise DataError(
                f"{rows.where(place)} was to be the image that the rows were read from; it has changed "
                "since. Begin again, and leave the images alone meanwhile."
            )
        into[place] = fitted(opened(content), fit)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside Python's lock
        while portion := list(islice(stream, AT_ONCE)):
            done += sum(1 for _ in pool.map(fill, portion))
            progress(done, len(rows))
    return into


def contents(pictures: Sequence[Picture]) -> Iterator[tuple[int, bytes]]:
    """(place, encoded bytes) of every image, an archive's in its own order: a packed one is read once.

    Raises:
        DataError: a file or an archive's member is not there any more.
    """
    archives: dict[str, dict[str, list[int]]] = {}
    for place, one in enumerate(pictures):
        if one.data is not None:
            yield place, one.data
        elif one.member:
            archives.setdefault(one.source, {}).setdefault(one.member, []).append(place)
        else:
            yield place, _of_file(one.source)
    for source, wanted in archives.items():
        for member, content in members(source, wanted):
            for place in wanted.pop(member, ()):
                yield place, content
        if wanted:
            raise DataError(
                f"{source} was to hold {next(iter(wanted))}; it does not any more ({len(wanted):,} images "
                "are missing). Put the archive back as it was."
            )


def _of_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"An image was wanted at {path}; it cannot be read ({error.strerror}). Put it back, or leave it "
            "out of the rows."
        ) from error


def names_in(source: str) -> list[str]:
    """Names of the files of a zip or tar archive, in its order; none is read.

    Raises:
        DataError: it is damaged.
    """
    with _whole(source):
        if zipfile.is_zipfile(source):
            with _zip(source) as archive:
                return [info.filename for info in archive.infolist() if not info.is_dir()]
        with tarfile.open(source, "r:*") as packed:
            return [member.name for member in packed if member.isfile()]


def members(source: str, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the files `wanted` of a zip or tar archive, in its order.

    Raises:
        DataError: it is damaged.
    """
    with _whole(source):
        if zipfile.is_zipfile(source):
            with _zip(source) as archive:
                for info in archive.infolist():
                    if info.filename in wanted:
                        yield info.filename, archive.read(info)
            return
        with tarfile.open(source, "r:*") as packed:
            for member in packed:
                if member.isfile() and member.name in wanted:
                    file = packed.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()


def _zip(source: str) -> zipfile.ZipFile:
    """A zip archive, opened, its names as they were written."""
    with zipfile.ZipFile(source) as archive:
        unsaid = [one for one in archive.infolist() if not one.flag_bits & 0x800]  # 0x800: it is UTF-8
        codec = encoding_of_names([one.orig_filename.encode("cp437") for one in unsaid])
    return zipfile.ZipFile(source, metadata_encoding=codec)


@contextlib.contextmanager
def _whole(source: str) -> Iterator[None]:
    """Inside, an archive is read; what its library throws of a damaged one is said plainly."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"{source} was to be a zip or tar archive of images; it could not be read to its end "
            f"({type(error).__name__}: {error}). Copy it anew."
        ) from error


def opened(content: bytes, *, least: int | None = None) -> Any:
    """A decoded Pillow image, upright as its camera says; `least`: at least so many pixels a side are enough.

    Raises:
        OSError, ValueError, …: it is no image, or a damaged one (UNREADABLE).
    """
    pil = pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("error", pil.Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # odd tags of a camera
        try:
            image = pil.Image.open(io.BytesIO(content))
            if least is not None:
                image.draft("RGB", (least, least))  # JPEG: decoded at an eighth of its size, to its very end
            image.load()
            return pil.ImageOps.exif_transpose(image)
        except pil.Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height as stored, by the file's head alone."""
    with pillow().Image.open(io.BytesIO(content)) as image:
        return int(image.width), int(image.height)


def fitted(image: Any, fit: Fit) -> np.ndarray:
    """(C, H, W) uint8 of a decoded image."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel, which `convert` would clip
        values = np.asarray(image, np.float32)
        image = pillow().Image.fromarray((values / (257.0 if values.max() > 255 else 1.0)).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    image = image.convert("L" if fit.channels == 1 else "RGB")
    height, width = fit.size
    if fit.edge is not None:
        share = fit.edge / min(image.size)
        size = (max(width, round(image.width * share)), max(height, round(image.height * share)))
        image = image.resize(size, fit.resample)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        image = image.crop((left, top, left + width, top + height))
    elif image.size != (width, height):
        image = image.resize((width, height), fit.resample)
    found = np.asarray(image)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


def pillow() -> Any:
    """Pillow.

    Raises:
        NotSupported: it is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise NotSupported(
            "Images were to be read; Pillow is not installed. Install it: `pip install 'penjing[vision]'`."
        ) from error
    return PIL
