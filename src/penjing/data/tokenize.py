"""Texts to token ids, once: packed end to end, kept in the user's cache and memory-mapped the next time."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.mapped import mapped
from penjing.errors import SpecError
from penjing.files import CannotWrite, cache_folder, drop_oldest, write_with
from penjing.records import Tokens

_CHUNK = 8192  # texts at once: enough for all threads, little to hold
_FORMAT = "penjing tokens 1"
_MOST_BYTES = 4 << 30
_copies: weakref.WeakKeyDictionary[Any, dict[tuple[int, int], Any]] = weakref.WeakKeyDictionary()


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int,
    cache: bool = True,
    most_bytes: int = _MOST_BYTES,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tokens:
    """The token ids of texts, with the tokenizer's special tokens, cut to `max_length` tokens a text.

    Ids are uint16 where the vocabulary is smaller than 65,536, else int32. With `cache`, they are kept in
    `cache_folder()/tokens`, keyed by tokenizer, limit and texts, and memory-mapped when they are there; the
    oldest go when more than `most_bytes` are kept. Without a folder to write to it works as well, only not
    faster the next time.

    Args:
        tokenizer: of transformers, fast or slow.
        progress: called with (texts done, texts in all).
        tell: called with a sentence for the user, such as that a broken cache file was made anew.

    Raises:
        SpecError: `max_length` leaves no room beside the special tokens.
    """
    room = max_length - int(tokenizer.num_special_tokens_to_add(pair=False))
    if room < 1:
        raise SpecError(
            f"`data.max_length` is {max_length}; this tokenizer adds {max_length - room} special tokens, so "
            f"no text would be left. "
            f"Use at least {max_length - room + 4}."
        )
    folder = cache_folder() if cache and len(texts) else None
    path = None if folder is None else folder / "tokens" / f"{_key(tokenizer, texts, max_length)}.safetensors"
    tell = tell or (lambda sentence: None)
    if path is not None and path.exists():
        found = _load(path, len(texts))
        if found is not None:
            with contextlib.suppress(OSError):
                path.touch()  # the oldest by use go first
            return found
        tell(f"{path} is broken; the texts are tokenized anew and it is replaced.")
    tokens = _made(tokenizer, texts, max_length, room, progress)
    if path is not None:
        try:
            write_with(path, lambda aside: _save(aside, tokens))
            drop_oldest(path.parent.glob("*.safetensors"), most_bytes, {path})
        except CannotWrite as error:
            tell(f"Tokens could not be kept for the next time: {error}")
    return tokens


def _backend(tokenizer: Any) -> Any | None:
    """The Rust tokenizer inside a fast one, else None."""
    return getattr(tokenizer, "backend_tokenizer", None) if getattr(tokenizer, "is_fast", False) else None


def _made(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    room: int,
    progress: Callable[[int, int], None] | None,
) -> Tokens:
    dtype = np.uint16 if len(tokenizer) < 65536 else np.int32
    ids: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    cut = 0
    backend = _backend(tokenizer)
    chunks = _slow(tokenizer, texts, room) if backend is None else _fast(tokenizer, texts, max_length)
    done = 0
    for rows, n_cut in chunks:
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        ids.append(np.fromiter((i for row in rows for i in row), dtype, int(sizes.sum())))
        lengths.append(sizes)
        cut += n_cut
        done += len(rows)
        if progress is not None:
            progress(done, len(texts))
    starts = np.concatenate([[0], *lengths]).cumsum().astype(np.int64)
    return Tokens(np.concatenate([*ids, np.zeros(0, dtype)]), starts, cut)


def _fast(tokenizer: Any, texts: Sequence[str], max_length: int) -> Iterator[tuple[list[list[int]], int]]:
    backend = _own_backend(tokenizer, max_length)
    for begin in range(0, len(texts), _CHUNK):
        found = backend.encode_batch_fast(list(texts[begin : begin + _CHUNK]))
        yield [one.ids for one in found], sum(bool(one.overflowing) for one in found)


def _own_backend(tokenizer: Any, max_length: int) -> Any:
    """A copy of the Rust tokenizer that cuts at `max_length` and never pads, kept while its tokenizer lives.

    Setting the limit on the caller's would change it for them, and fails ("Already borrowed") while another
    thread, such as a server's, is encoding with it.
    """
    copies = _copies.setdefault(tokenizer, {})
    key = (max_length, len(tokenizer))
    if key not in copies:
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.enable_truncation(max_length)
        copies.clear()  # one limit at a time is what a run or a bundle needs
        copies[key] = backend
    return copies[key]


def _slow(tokenizer: Any, texts: Sequence[str], room: int) -> Iterator[tuple[list[list[int]], int]]:
    for begin in range(0, len(texts), _CHUNK):
        bare = [tokenizer.encode(text, add_special_tokens=False) for text in texts[begin : begin + _CHUNK]]
        whole = [tokenizer.build_inputs_with_special_tokens(row[:room]) for row in bare]
        yield whole, sum(len(row) > room for row in bare)


def _key(tokenizer: Any, texts: Sequence[str], max_length: int) -> str:
    """SHA-256 over what decides the ids: the tokenizer's description, the limit, texts and their lengths."""
    digest = hashlib.sha256(f"{_FORMAT}\0{max_length}\0{type(tokenizer).__name__}\0".encode())
    backend = _backend(tokenizer)
    if backend is not None:
        described = json.loads(backend.to_str())
        described.pop("truncation", None)
        described.pop("padding", None)
        digest.update(json.dumps(described, sort_keys=True).encode("utf-8", "surrogatepass"))
    else:
        settings = {k: repr(v) for k, v in sorted(getattr(tokenizer, "init_kwargs", {}).items())}
        digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), settings]).encode())
    for begin in range(0, len(texts), _CHUNK):
        part = texts[begin : begin + _CHUNK]
        digest.update(np.fromiter(map(len, part), np.int64, len(part)).tobytes())
        digest.update("".join(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:40]


def _save(path: Path, tokens: Tokens) -> None:
    from safetensors.numpy import save_file

    ids = np.ascontiguousarray(tokens.ids)
    facts = {"format": _FORMAT, "cut": str(tokens.cut), "sha256": _checksum(ids, tokens.starts)}
    save_file({"ids": ids, "starts": tokens.starts}, str(path), metadata=facts)


def _checksum(ids: np.ndarray, starts: np.ndarray) -> str:
    digest = hashlib.sha256(starts.data)
    digest.update(ids.data)
    return digest.hexdigest()


def _load(path: Path, n_rows: int) -> Tokens | None:
    """The tokens of a cache file, ids memory-mapped; None where it is not as it was written."""
    try:
        facts, arrays = mapped(path)
        starts = np.array(arrays["starts"])
        whole = len(starts) == n_rows + 1 and starts[-1] == len(arrays["ids"]) and facts["format"] == _FORMAT
        if not whole or facts["sha256"] != _checksum(arrays["ids"], starts):
            return None
        return Tokens(arrays["ids"], starts, int(facts["cut"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
