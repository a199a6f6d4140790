"""Documents to one long row of token ids on disk, and that row to the pieces that an objective learns from.

The row is written once a corpus and tokenizer, kept in the user's cache and memory-mapped, so a corpus may be
larger than memory. Pieces tile it: no token is lost, and none stands in two pieces.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.mapped import mapped
from penjing.data.tokenize import backend_of, fingerprint
from penjing.errors import DataError, NotSupported
from penjing.files import alone, cache_folder, new_folder
from penjing.records import NO_ROWS, Part, Tokens
from penjing.task import Feed

CHUNK = 512  # documents tokenized at once
LONGEST = 200_000  # characters tokenized at once of a document; longer ones are cut where a line ends
FORMAT, FACTS = "penjing feed 1", "facts.safetensors"
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？；])|\n+")


@dataclass(frozen=True)
class Document:
    """A text and the source it is of."""

    text: str
    source: str


@dataclass(frozen=True)
class Stream:
    """Documents as token ids end to end: document i is `ids[starts[i]:starts[i + 1]]`."""

    ids: np.ndarray  # (total,) uint16 or int32, memory-mapped
    starts: np.ndarray  # (n + 1,) int64
    source_of: np.ndarray  # (n,) int32, a place in `sources`
    n_bytes: np.ndarray  # (n,) int64, UTF-8 bytes of each document
    sources: tuple[str, ...]
    sha256: str
    heads: np.ndarray | None = None  # (total,) uint8: 1 where a token begins a word

    def __len__(self) -> int:
        return len(self.starts) - 1


def feed_of(
    documents: Callable[[], Iterable[Document]],
    tokenizer: Any,
    feed: Feed,
    *,
    key: str,
    words: Callable[[str], Sequence[int]] | None = None,
    cache: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Stream:
    """The token ids of all documents, from the cache where they are there.

    `key` says what the documents are (a hash of their files). `words(text)` gives the places at which words
    begin, where the objective asks for whole words. `progress` is called with bytes read so far.

    Raises:
        DataError: there is no text.
        NotSupported: whole words are asked of a tokenizer that gives no offsets.
    """
    state = f"{FORMAT}\0{fingerprint(tokenizer)}\0{feed.unit}\0{feed.ends}\0{feed.heads}\0{key}"
    name = hashlib.sha256(state.encode()).hexdigest()[:40]
    kept = cache_folder() if cache else None
    folder = (kept or _scratch()) / "feeds" / name
    if not (folder / FACTS).is_file():
        with alone(folder.with_name(f".{folder.name}.lock")):
            if not (folder / FACTS).is_file():  # another process wrote it meanwhile
                with new_folder(folder) as aside:
                    _write(aside, documents(), tokenizer, feed, words, progress)
    return _opened(folder)


def _scratch() -> Path:
    """A folder that goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="penjing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _opened(folder: Path) -> Stream:
    notes, arrays = mapped(folder / FACTS)
    about = json.loads(notes["about"])
    ids = np.memmap(folder / "ids.bin", np.dtype(about["dtype"]), "r")
    heads = np.memmap(folder / "heads.bin", np.uint8, "r") if (folder / "heads.bin").is_file() else None
    whole = {name: np.array(array) for name, array in arrays.items()}
    return Stream(ids, **whole, sources=tuple(about["sources"]), sha256=about["sha256"], heads=heads)


def _write(
    folder: Path,
    documents: Iterable[Document],
    tokenizer: Any,
    feed: Feed,
    words: Callable[[str], Sequence[int]] | None,
    progress: Callable[[int], None] | None,
) -> None:
    from safetensors.numpy import save_file

    dtype = np.dtype(np.uint16 if len(tokenizer) < 65536 else np.int32)
    first, last = ends_of(tokenizer) if feed.ends else ((), ())
    lengths: list[int] = []
    sizes: list[int] = []
    owners: list[int] = []
    sources: dict[str, int] = {}
    digest, done = hashlib.sha256(), 0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context((folder / "ids.bin").open("wb"))
        flags = stack.enter_context((folder / "heads.bin").open("wb")) if feed.heads else None
        waiting = _units(documents, feed)
        reader = _with_heads(tokenizer, words) if feed.heads and words else _plain(tokenizer)
        while portion := list(islice(waiting, CHUNK)):
            found = _encoded(reader, [one.text for one in portion])
            for one, (ids, heads) in zip(portion, found, strict=True):
                if not ids:  # such as a zero-width blank: a piece of nothing cannot be learned from
                    continue
                row = np.array([*first, *ids, *last], dtype)
                out.write(row.tobytes())
                digest.update(row.tobytes())
                if flags is not None:
                    flags.write(np.array([*[1] * len(first), *heads, *[1] * len(last)], np.uint8).tobytes())
                lengths.append(len(row))
                sizes.append(len(one.text.encode("utf-8", "surrogatepass")))
                owners.append(sources.setdefault(one.source, len(sources)))
                done += sizes[-1]
            if progress:
                progress(done)
    if not sum(lengths):
        raise DataError(
            "Text to learn from was wanted; the corpus holds none that this tokenizer makes a token of. Give "
            "files of text, or a folder that `penjing corpus prepare` made."
        )
    digest.update(json.dumps([*sources]).encode())
    about = {"dtype": dtype.name, "sources": [*sources], "sha256": digest.hexdigest()}
    arrays: dict[str, np.ndarray] = {
        "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "source_of": np.array(owners, np.int32),
        "n_bytes": np.array(sizes, np.int64),
    }
    save_file(arrays, folder / FACTS, metadata={"about": json.dumps(about)})


def _units(documents: Iterable[Document], feed: Feed) -> Iterator[Document]:
    """Documents, or their sentences; blank ones are none."""
    for one in documents:
        texts = SENTENCE.split(one.text) if feed.unit == "sentence" else [one.text]
        for text in texts:
            if text.strip():
                yield Document(text, one.source)


def ends_of(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before and after a document in causal modelling: the tokenizer's own first token where it
    adds one, and its last one, where it has one."""
    added, bos, eos = tokenizer("a")["input_ids"][:1], tokenizer.bos_token_id, tokenizer.eos_token_id
    first = (int(bos),) if bos is not None and [*added] == [bos] else ()
    return first, () if eos is None else (int(eos),)


Row = tuple[list[int], list[int]]  # ids, and which of them begin a word, where that is asked for
Reader = Callable[[list[str]], list[Row]]


def _plain(tokenizer: Any) -> Reader:
    """Texts to their ids without special tokens."""
    backend = backend_of(tokenizer)
    if backend is None:
        asked = {"add_special_tokens": False, "verbose": False, "return_attention_mask": False}
        return lambda texts: [(ids, []) for ids in tokenizer(texts, **asked)["input_ids"]]
    own = copy.deepcopy(backend)  # another thread may be encoding with the caller's
    own.no_padding()
    own.no_truncation()
    # Without offsets, which take a tenth of the time.
    return lambda texts: [(one.ids, []) for one in own.encode_batch_fast(texts, add_special_tokens=False)]


def _with_heads(tokenizer: Any, words: Callable[[str], Sequence[int]]) -> Reader:
    """Texts to their ids, and 1 for each that begins a word.

    Raises:
        NotSupported: the tokenizer gives no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise NotSupported(
            f"Whole words were wanted; the tokenizer {type(tokenizer).__name__} does not say which "
            "characters a token is of. Take a fast tokenizer, or `units: tokens`."
        )

    def read(texts: list[str]) -> list[Row]:
        made = tokenizer(texts, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        found = zip(texts, made["input_ids"], made["offset_mapping"], strict=True)
        return [(ids, _heads(text, spans, words)) for text, ids, spans in found]

    return read


def _encoded(reader: Reader, texts: list[str]) -> list[Row]:
    """What the reader finds in each text; long ones are read in pieces."""
    pieces = [_cut(text) for text in texts]
    rows = iter(reader([piece for some in pieces for piece in some]))
    whole = []
    for some in pieces:
        part = list(islice(rows, len(some)))
        ids, heads = part[0] if len(part) == 1 else ([*chain(*of)] for of in zip(*part, strict=True))
        whole.append((ids, heads))
    return whole


def _cut(text: str) -> list[str]:
    """A long text in pieces, where a line ends if one does."""
    pieces = []
    while len(text) > LONGEST:
        at = text.rfind("\n", LONGEST // 2, LONGEST) + 1 or LONGEST
        pieces.append(text[:at])
        text = text[at:]
    return [*pieces, text]


def _heads(text: str, spans: Sequence[tuple[int, int]], words: Callable[[str], Sequence[int]]) -> list[int]:
    """1 for each token that holds the first sign of a word; signs between words belong to what follows."""
    begins = np.zeros(len(text) + 1, bool)
    begins[np.asarray(words(text), dtype=np.int64)] = True
    count = np.concatenate([[0], np.cumsum(begins[:-1])])
    return [int(count[last] > count[first]) or int(i == 0) for i, (first, last) in enumerate(spans)]


def pieces_of(stream: Stream, feed: Feed, max_length: int) -> Part:
    """The stream as sequences of at most `max_length` tokens, with room for what the objective puts around.

    `targets` (n, 4): source, document, whether the document ends with this piece, bytes (a document's with
    its first piece). Pieces of a document differ by at most one token.
    """
    room = feed.room(max_length) if feed.room else max_length - feed.taken
    if room < 2:
        raise DataError(
            f"Pieces of at least 2 tokens were wanted; `data.max_length` is {max_length}, of which the "
            f"objective takes {feed.taken} itself. Set it to 16 or more."
        )
    lengths = np.diff(stream.starts)
    if feed.unit == "stream":
        total = int(stream.starts[-1])
        starts = np.append(np.arange(0, total, room, dtype=np.int64), total)
        if len(starts) > 2:  # a last piece of one token would be asked for nothing
            starts[-2] = (starts[-3] + starts[-1] + 1) // 2
        document = np.searchsorted(stream.starts, starts[:-1], side="right") - 1
        ends = np.zeros(len(starts) - 1, np.int64)
        ends[-1] = 1
        share = int(stream.n_bytes.sum()) / total
        n_bytes = np.round(share * np.diff(starts)).astype(np.int64)
    else:
        counts = np.maximum(1, -(-lengths // room))
        document = np.repeat(np.arange(len(lengths)), counts)
        nth = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        begin = stream.starts[:-1][document] + nth * lengths[document] // counts[document]
        starts = np.append(begin, stream.starts[-1]).astype(np.int64)
        ends = (nth == counts[document] - 1).astype(np.int64)
        n_bytes = np.where(nth == 0, stream.n_bytes[document], 0)
    targets = np.stack([stream.source_of[document], document, ends, n_bytes], 1).astype(np.int64)
    return Part(NO_ROWS, Tokens(stream.ids, starts, heads=stream.heads), targets)
