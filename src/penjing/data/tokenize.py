"""Texts to token ids, once: packed end to end, kept in the user's cache and memory-mapped the next time."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
_COPIES = 4  # limits of one tokenizer at a time: tasks on one base may each have their own
_copies: weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], Any]] = weakref.WeakKeyDictionary()


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int,
    cache: bool = True,
    most_bytes: int = _MOST_BYTES,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
    seconds: Sequence[str] | None = None,
    said: bool = False,
) -> Tokens:
    """The token ids of texts, with the tokenizer's special tokens, cut to `max_length` tokens a text.

    With `seconds`, each text and its second one are one sequence in the tokenizer's frame for pairs, with
    segments where the tokenizer tells them apart; of a pair that is too long the longer text is cut first.
    `said`: these are answers, which translators' tokenizers may read by other pieces than sources (Marian).

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
    room = max_length - int(tokenizer.num_special_tokens_to_add(pair=seconds is not None))
    if room < (1 if seconds is None else 2):
        raise SpecError(
            f"`data.max_length` is {max_length}; this tokenizer adds {max_length - room} special tokens, so "
            f"no text would be left. "
            f"Use at least {max_length - room + 4}."
        )
    folder = cache_folder() if cache and len(texts) else None
    said = said and hasattr(tokenizer, "_switch_to_target_mode")  # as transformers itself asks
    key = "" if folder is None else _key(tokenizer, texts, max_length, seconds) + "-said" * said
    path = None if folder is None else folder / "tokens" / f"{key}.safetensors"
    tell = tell or (lambda sentence: None)
    if path is not None and path.exists():
        found = _load(path, len(texts))
        if found is not None:
            with contextlib.suppress(OSError):
                path.touch()  # the oldest by use go first
            return found
        tell(f"{path} is broken; the texts are tokenized anew and it is replaced.")
    if seconds is None:
        tokens = _made(tokenizer, texts, max_length, room, progress, said=said)
    else:
        tokens = _made_pairs(tokenizer, texts, seconds, max_length, progress)
    if path is not None:
        try:
            write_with(path, lambda aside: _save(aside, tokens))
            drop_oldest(path.parent.glob("*.safetensors"), most_bytes, {path})
        except CannotWrite as error:
            tell(f"Tokens could not be kept for the next time: {error}")
    return tokens


def backend_of(tokenizer: Any) -> Any | None:
    """The Rust tokenizer inside a fast one, else None."""
    return getattr(tokenizer, "backend_tokenizer", None) if getattr(tokenizer, "is_fast", False) else None


def _made(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    room: int,
    progress: Callable[[int, int], None] | None,
    *,
    said: bool,
) -> Tokens:
    dtype = np.uint16 if len(tokenizer) < 65536 else np.int32
    ids: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    cut = 0
    backend = backend_of(tokenizer)
    chunks = _slow(tokenizer, texts, room) if backend is None else _fast(tokenizer, texts, max_length)
    chunks = _said(tokenizer, texts, max_length) if said else chunks
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


def _made_pairs(
    tokenizer: Any,
    texts: Sequence[str],
    seconds: Sequence[str],
    max_length: int,
    progress: Callable[[int, int], None] | None,
) -> Tokens:
    dtype = np.uint16 if len(tokenizer) < 65536 else np.int32
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    cut = 0
    backend = backend_of(tokenizer)
    for begin in range(0, len(texts), _CHUNK):
        pairs = list(zip(texts[begin : begin + _CHUNK], seconds[begin : begin + _CHUNK], strict=True))
        if backend is not None:
            own = own_backend(tokenizer, max_length).encode_batch(pairs)
            found = [(one.ids, one.type_ids) for one in own]
            cut += sum(bool(one.overflowing) for one in own)
        else:
            found, n_cut = _slow_pairs(tokenizer, pairs, max_length)
            cut += n_cut
        sizes = np.fromiter((len(one) for one, _ in found), np.int64, len(found))
        ids.append(np.fromiter((i for one, _ in found for i in one), dtype, int(sizes.sum())))
        types.append(np.fromiter((i for _, one in found for i in one), np.uint8, int(sizes.sum())))
        lengths.append(sizes)
        if progress is not None:
            progress(begin + len(pairs), len(texts))
    starts = np.concatenate([[0], *lengths]).cumsum().astype(np.int64)
    segments = np.concatenate([*types, np.zeros(0, np.uint8)])
    typed = "token_type_ids" in tokenizer.model_input_names and segments.any()
    return Tokens(
        np.concatenate([*ids, np.zeros(0, dtype)]), starts, cut, segments=segments if typed else None
    )


def _slow_pairs(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], max_length: int
) -> tuple[list[tuple[list[int], list[int]]], int]:
    found, cut = [], 0
    for a, b in pairs:
        whole = tokenizer(a, b, verbose=False, return_token_type_ids=True)
        kept = tokenizer(
            a, b, truncation="longest_first", max_length=max_length, verbose=False, return_token_type_ids=True
        )
        cut += len(whole["input_ids"]) > len(kept["input_ids"])
        found.append((kept["input_ids"], kept["token_type_ids"]))
    return found, cut


def _fast(tokenizer: Any, texts: Sequence[str], max_length: int) -> Iterator[tuple[list[list[int]], int]]:
    backend = own_backend(tokenizer, max_length)
    for begin in range(0, len(texts), _CHUNK):
        found = backend.encode_batch_fast(list(texts[begin : begin + _CHUNK]))
        yield [one.ids for one in found], sum(bool(one.overflowing) for one in found)


def own_backend(tokenizer: Any, max_length: int) -> Any:
    """A copy of the Rust tokenizer that cuts at `max_length` and never pads, kept while its tokenizer lives.

    Setting the limit on the caller's would change it for them, and fails ("Already borrowed") while another
    thread, such as a server's, is encoding with it.
    """
    copies = _copies.setdefault(tokenizer, {})
    key = (max_length, len(tokenizer), getattr(tokenizer, "src_lang", None))
    backend = copies.get(key)
    if backend is None:
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.enable_truncation(max_length)
        if len(copies) >= _COPIES:
            copies.clear()
        copies[key] = backend
    return backend


def _slow(tokenizer: Any, texts: Sequence[str], room: int) -> Iterator[tuple[list[list[int]], int]]:
    for begin in range(0, len(texts), _CHUNK):
        bare = [tokenizer.encode(text, add_special_tokens=False) for text in texts[begin : begin + _CHUNK]]
        whole = [tokenizer.build_inputs_with_special_tokens(row[:room]) for row in bare]
        yield whole, sum(len(row) > room for row in bare)


def _said(tokenizer: Any, texts: Sequence[str], max_length: int) -> Iterator[tuple[list[list[int]], int]]:
    for begin in range(0, len(texts), _CHUNK):
        part = list(texts[begin : begin + _CHUNK])
        whole = tokenizer(text_target=part, verbose=False)["input_ids"]
        long = [i for i, row in enumerate(whole) if len(row) > max_length]
        for i in long:
            whole[i] = tokenizer(text_target=part[i], truncation=True, max_length=max_length)["input_ids"]
        yield whole, len(long)


def fingerprint(tokenizer: Any) -> str:
    """SHA-256 over what decides the ids that a tokenizer gives, lengths and padding apart."""
    digest = hashlib.sha256(f"{type(tokenizer).__name__}\0".encode())
    backend = backend_of(tokenizer)
    if backend is not None:
        described = json.loads(backend.to_str())
        described.pop("truncation", None)
        described.pop("padding", None)
        digest.update(json.dumps(described, sort_keys=True).encode("utf-8", "surrogatepass"))
    else:
        settings = {k: repr(v) for k, v in sorted(getattr(tokenizer, "init_kwargs", {}).items())}
        digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), settings]).encode())
    return digest.hexdigest()


def _key(tokenizer: Any, texts: Sequence[str], max_length: int, seconds: Sequence[str] | None = None) -> str:
    """SHA-256 over what decides the ids: the tokenizer, the limit, texts and their lengths."""
    digest = hashlib.sha256(f"{_FORMAT}\0{max_length}\0{fingerprint(tokenizer)}".encode())
    if seconds is not None:
        names = ",".join(tokenizer.model_input_names)
        digest.update(f"\0pairs {names}\0{_key(tokenizer, seconds, max_length)}".encode())
    for begin in range(0, len(texts), _CHUNK):
        part = texts[begin : begin + _CHUNK]
        digest.update(np.fromiter(map(len, part), np.int64, len(part)).tobytes())
        digest.update("".join(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:40]


def _save(path: Path, tokens: Tokens) -> None:
    from safetensors.numpy import save_file

    ids = np.ascontiguousarray(tokens.ids)
    arrays = {"ids": ids, "starts": tokens.starts}
    if tokens.segments is not None:
        arrays["segments"] = np.ascontiguousarray(tokens.segments)
    facts = {"format": _FORMAT, "cut": str(tokens.cut), "sha256": _checksum(arrays)}
    save_file(arrays, str(path), metadata=facts)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(arrays["starts"]).data)
    for name in ("ids", "segments"):
        if name in arrays:
            digest.update(arrays[name].data)
    return digest.hexdigest()


def _load(path: Path, n_rows: int) -> Tokens | None:
    """The tokens of a cache file, ids memory-mapped; None where it is not as it was written."""
    try:
        facts, arrays = mapped(path)
        starts = np.array(arrays["starts"])
        whole = len(starts) == n_rows + 1 and starts[-1] == len(arrays["ids"]) and facts["format"] == _FORMAT
        if not whole or facts["sha256"] != _checksum(arrays):
            return None
        return Tokens(arrays["ids"], starts, int(facts["cut"]), segments=arrays.get("segments"))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def in_parts(tokens: Tokens, each: int | Sequence[int]) -> Tokens:
    """Rows of several sequences from sequences that lie one after another: `each` of them make a row, or as
    many as it says for every row."""
    lengths = tokens.lengths
    if isinstance(each, int):
        parts = lengths.reshape(-1, each)
    else:
        counts = np.asarray(each, np.int64)
        parts = np.zeros((len(counts), int(counts.max(initial=1))), np.int64)
        parts[np.arange(parts.shape[1]) < counts[:, None]] = lengths
    starts = np.concatenate([[0], parts.sum(1).cumsum()]).astype(np.int64)
    return replace(tokens, starts=starts, parts=parts)


def has_pair_frame(tokenizer: Any) -> bool:
    """Whether a tokenizer puts something between two texts."""
    alone, both = (int(tokenizer.num_special_tokens_to_add(pair=pair)) for pair in (False, True))
    return both > alone
