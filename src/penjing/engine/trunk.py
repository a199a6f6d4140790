"""The trunk cache: what a model's frozen layers make of each row is computed once and kept on disk.

With k of L layers frozen, E passes over the rows cost (k / E + 3 (L - k)) / 3 L of training all of it
(design, section 4). Kept states are those that would be computed, to the bit (models/frozen.py), in the type
they are computed in: bf16 where the trunk runs in bf16, N T D 2 bytes for N rows of T tokens; one vector a
sequence where nothing of the trunk trains and the head begins with pooling.
They lie in `cache_folder()/trunk`, in one folder for each way of computing them: `fingerprint` covers
whatever could change a bit of them. What is not in it is in the rows' keys, which are hashes of token ids:
another tokenizer, another `max_length` or another text gives other ids or the same states.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from penjing.data.batches import cut, pack
from penjing.data.shelf import Shelf, keys_of
from penjing.device import processor
from penjing.errors import WontFit
from penjing.files import CannotWrite, cache_folder, drop_oldest
from penjing.models.heads import AVERAGES
from penjing.models.layers import bare
from penjing.models.model import Model
from penjing.models.modes import evaluating
from penjing.models.precision import WORKING
from penjing.plural import counted
from penjing.records import Tokens

FORMAT = "penjing trunk 1"  # to be changed with anything in models/ that changes states
CHUNK = 16 << 20  # bytes of values that are computed, and put in place, at once
MOST_TOKENS = 1 << 17  # at once, where only one vector a sequence is kept
SPARE = 64 << 20  # bytes of the disk that stay free


@dataclass(frozen=True)
class Need:
    """What the cache would hold for some rows."""

    layers: int  # frozen
    n_rows: int  # different ones
    n_missing: int  # of them, not computed yet
    n_bytes: int  # of all of them
    missing_bytes: int


def keep(
    model: Model,
    parts: Sequence[Tokens],
    *,
    most_bytes: int,
    tell: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int], None] = lambda n_rows: None,
) -> list[Tokens]:
    """The parts, each with what the model's frozen layers make of its rows; what is missing is computed.

    The result belongs to this model: batches packed from it skip the frozen layers.

    Args:
        model: prepared, with frozen layers that can be run apart.
        most_bytes: of all that the cache may hold; what was used longest ago makes room.
        tell: called with sentences for the user: what will be written, why we wait.
        progress: called with the number of rows that have just been computed.

    Raises:
        WontFit: the states are more than `most_bytes` or the disk has room for.
        CannotWrite: there is no folder to write to.
    """
    shelf = _shelf(model)
    keys = [keys_of(part) for part in parts]
    with shelf.held(lambda: tell("another process is computing states of frozen layers; waiting for it")):
        missing = _missing(shelf, keys, parts)
        need = _need(model, keys, parts, missing)
        if need.missing_bytes:
            _make_room(shelf, need, most_bytes, [key for part in keys for key in part])
            tell(
                f"states of {layers_said(need.layers)}: {need.n_missing:,} of "
                f"{counted(need.n_rows, 'row is', 'rows are')} computed once and kept in {shelf.folder} "
                f"({mib(need.missing_bytes)})"
            )
            with evaluating(model), torch.inference_mode():
                for rows, own in missing:
                    _fill(model, shelf, rows, own, progress)
        shelf.refresh()
        return [replace(part, kept=shelf.find(own)) for part, own in zip(parts, keys, strict=True)]


def size_of(model: Model, n_sequences: int, n_tokens: int) -> int:
    """Bytes that the cache needs for so many sequences of so many tokens together."""
    assert model.frozen is not None
    width = int(bare(model.trunk).config.hidden_size)
    return (n_sequences if model.pools else n_tokens) * width * _dtype(model).itemsize


def layers_said(n: int) -> str:
    """`the frozen layer`, `the 4 frozen layers`."""
    return "the frozen layer" if n == 1 else f"the {n} frozen layers"


def mib(n_bytes: float) -> str:
    """`12.3 MiB`."""
    return f"{n_bytes / 2**20:,.1f} MiB"


def fingerprint(model: Model) -> str:
    """SHA-256 over whatever decides about the bits of the states: the frozen weights themselves, the base's
    configuration, how many layers, how the head pools, the type, and what computes.
    """
    frozen = model.frozen
    assert frozen is not None
    inner = bare(model.trunk)
    first = next(model.trunk.parameters())
    cuda = first.device.type == "cuda"
    names = {"_name_or_path", "transformers_version"}  # of the configuration: where it lies, who wrote it
    about = {
        "format": FORMAT,
        "versions": [importlib.metadata.version(name) for name in ("torch", "transformers")],
        "machine": torch.cuda.get_device_name(first.device) if cuda else processor(),
        "threads": 0 if cuda else torch.get_num_threads(),
        "class": type(inner).__name__,
        "config": {k: v for k, v in inner.config.to_dict().items() if k not in names},
        "way": [model.way.packed, model.way.offset],
        "precision": model.precision,
        "depth": [frozen.depth, frozen.whole],
        "pools": model.pools,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in frozen.contents():
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shelf(model: Model) -> Shelf:
    folder = cache_folder()
    if folder is None:
        raise CannotWrite(
            "A folder for states of frozen layers was wanted; neither $PENJING_CACHE nor the user's cache "
            "can be written to. Set PENJING_CACHE to a folder with room, or `train.trunk_cache: false`."
        )
    place = folder / "trunk" / fingerprint(model)[:40]
    return Shelf(place, _dtype(model), pooled=model.pools is not None)


def _dtype(model: Model) -> torch.dtype:
    """Of what is kept: a mean is taken in fp32."""
    if model.pools in AVERAGES:
        return torch.float32
    return WORKING.get(model.precision, torch.float32)


def _missing(
    shelf: Shelf, keys: Sequence[Sequence[bytes]], parts: Sequence[Tokens]
) -> list[tuple[Tokens, list[bytes]]]:
    """Each row that is not on the shelf, once, and its key; part by part."""
    found = []
    seen: set[bytes] = set()
    for own, part in zip(keys, parts, strict=True):
        chosen = []
        for row, key in enumerate(own):
            if key not in shelf and key not in seen:
                seen.add(key)
                chosen.append(row)
        found.append((part.take(np.array(chosen, dtype=np.int64)), [own[row] for row in chosen]))
    return found


def _need(
    model: Model,
    keys: Sequence[Sequence[bytes]],
    parts: Sequence[Tokens],
    missing: Sequence[tuple[Tokens, list[bytes]]],
) -> Need:
    assert model.frozen is not None
    a_row = {
        key: size_of(model, int(each), int(n))
        for own, part in zip(keys, parts, strict=True)
        for key, each, n in zip(own, _sequences(part), part.lengths, strict=True)
    }
    lacking = [key for _, own in missing for key in own]
    return Need(
        layers=model.frozen.depth,
        n_rows=len(a_row),
        n_missing=len(lacking),
        n_bytes=sum(a_row.values()),
        missing_bytes=sum(a_row[key] for key in lacking),
    )


def _sequences(tokens: Tokens) -> np.ndarray:
    """(n,) sequences that each row is read as."""
    return np.ones(len(tokens), np.int64) if tokens.parts is None else (tokens.parts > 0).sum(1)


def _make_room(shelf: Shelf, need: Need, most_bytes: int, keys: Sequence[bytes]) -> None:
    """Let go of what was used longest ago, or refuse."""
    if need.n_bytes > most_bytes:
        raise WontFit(
            f"The states of {layers_said(need.layers)} need {mib(need.n_bytes)} for "
            f"{counted(need.n_rows, 'row')}; `train.cache_gib` allows {mib(most_bytes)}. Raise it, or lower "
            f"`data.max_length`."
        )
    drop_oldest(
        shelf.folder.parent.glob("*/*.safetensors"), most_bytes - need.missing_bytes, shelf.paths(keys)
    )
    free = shutil.disk_usage(shelf.folder).free
    if need.missing_bytes + SPARE > free:
        raise WontFit(
            f"The states of {layers_said(need.layers)} need {mib(need.missing_bytes)} more; "
            f"{shelf.folder} has {mib(free)} free. Make room, or set PENJING_CACHE to a folder that has it."
        )


def _fill(
    model: Model, shelf: Shelf, rows: Tokens, keys: list[bytes], progress: Callable[[int], None]
) -> None:
    """Compute the rows, rows of like length together, and put them on the shelf a chunk at a time."""
    lengths, each = rows.lengths, _sequences(rows)
    most = MOST_TOKENS if shelf.pooled else CHUNK // size_of(model, 1, 1)
    device = next(model.parameters()).device
    for piece in cut(np.arange(len(rows)), lengths, tokens=most):
        values = model.kept(pack(rows, piece).to(device))
        sizes = each[piece] if shelf.pooled else lengths[piece]
        shelf.add([keys[row] for row in piece], sizes, values)
        progress(len(piece))
