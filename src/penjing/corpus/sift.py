"""One part of raw text to one file of good documents: read, normalise, tell the language, judge, sign.

What leaves a part is a Parquet file with, beside the texts, what twins are found by; and a tally of every
document
that was dropped, with its reason and some samples. Parts know nothing of one another.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.contamination import Against, contaminated
from penjing.corpus.documents import TROUBLES, Document, documents
from penjing.corpus.inputs import Part
from penjing.corpus.language import languages
from penjing.corpus.normalise import normaliser
from penjing.corpus.quality import judge
from penjing.corpus.units import CHUNK, MOST_TEXTS, Words, chunk, ngrams
from penjing.data.duplicates import Shingles, sets_of, signatures
from penjing.errors import DataError
from penjing.files import write_json, write_with
from penjing.pii import mask

_SPACES = bytes(32 if chr(i).isspace() else i for i in range(256))  # of ASCII: any white space is a blank
QUOTED = 300  # characters of a dropped document that are kept as a sample


@dataclass
class Tally:
    """What became of a part's documents: by source the number, characters and bytes read, and by reason
    what went.
    """

    read: dict[str, list[int]] = field(default_factory=dict)  # source: documents, characters, UTF-8 bytes
    dropped: dict[str, dict[str, list[int]]] = field(
        default_factory=dict
    )  # reason: source: documents, characters
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # reason: id, source, text, why
    masked: dict[str, int] = field(default_factory=dict)  # kind of personal data: how often
    troubles: list[str] = field(default_factory=list)  # what could not be read, for people

    def add(self, source: str, texts: Sequence[str]) -> None:
        """Count documents that were read."""
        of, whole = self.read.setdefault(source, [0, 0, 0]), "".join(texts)
        of[0] += len(texts)
        of[1] += len(whole)
        of[2] += len(whole) if whole.isascii() else len(whole.encode("utf-8", "surrogatepass"))

    def drop(self, reason: str, source: str, where: str, text: str, why: str = "", *, most: int) -> None:
        """Count a document that was dropped, and keep `most` of a reason as samples, drawn by their ids."""
        of = self.dropped.setdefault(reason, {}).setdefault(source, [0, 0])
        of[0] += 1
        of[1] += len(text)
        one = {"id": where, "source": source, "text": text[:QUOTED], **({"why": why} if why else {})}
        kept = self.samples.setdefault(reason, [])
        if len(kept) < most:
            kept.append(one)
        elif most and (place := zlib.crc32(where.encode("utf-8", "replace")) % of[0]) < most:
            kept[place] = one


@dataclass(frozen=True)
class Good:
    """Documents that stay, so far."""

    texts: list[str]
    sources: list[str]
    ids: list[str]
    languages: list[str]
    words: Words


def sift(part: Part, spec: CorpusSpec, known: Against | None, target: Path) -> None:
    """Write `target` (Parquet) and, last of all, `target` with `.json`: the part is done when that is there.

    Raises:
        DataError: something could not be read and `broken` is `refuse`.
        NotSupported: what the spec asks for needs a package that is missing.
    """
    import pyarrow.parquet as pq

    tally = Tally()

    def write(aside: Path) -> None:
        # Soon thrown away: what packs fastest, without statistics and dictionaries of texts.
        told = ["source", "language"]
        with pq.ParquetWriter(
            aside, schema(), compression="lz4", use_dictionary=told, write_statistics=False
        ) as out:
            for good in _good(part, spec, known, tally):
                out.write_table(_table(good, spec))

    write_with(target, write)
    write_json(target.with_suffix(".json"), vars(tally))


def _good(part: Part, spec: CorpusSpec, known: Against | None, tally: Tally) -> Iterator[Good]:
    for batch in _batches(part, spec, tally):
        texts = [text for _, _, text, _ in batch]
        units = chunk(texts)
        told = languages(texts, units, by=spec.language.by)
        # A program whose comments outweigh its signs is code all the same: its file's name says so.
        spoken = ["code" if row[3] else language for row, language in zip(batch, told, strict=True)]
        reasons = judge(texts, units, spoken, spec.quality) if spec.quality else [""] * len(texts)
        dirty = contaminated(units, known) if known else np.zeros(len(texts), bool)
        kept, changed = [], False
        for i, (source, where, text, _) in enumerate(batch):
            wanted = spec.language.keep is None or spoken[i] in spec.language.keep
            reason = ("" if wanted else "language") or reasons[i] or ("contaminated" if dirty[i] else "")
            if not reason and spec.pii != "keep":
                texts[i], reason = _without_pii(text, spec, tally)
                changed = changed or texts[i] != text
            if reason:
                tally.drop(reason, source, where, text, most=spec.samples)
            else:
                kept.append(i)
        if kept:
            yield Good(
                [texts[i] for i in kept],
                [batch[i][0] for i in kept],
                [batch[i][1] for i in kept],
                [spoken[i] for i in kept],
                chunk([texts[i] for i in kept]).words if changed else units.words.of(np.array(kept)),
            )


def _without_pii(text: str, spec: CorpusSpec, tally: Tally) -> tuple[str, str]:
    """The text masked, and a reason to drop it."""
    masked, spans = mask(text, kinds=spec.pii_kinds)
    for span in spans:
        tally.masked[span.kind] = tally.masked.get(span.kind, 0) + 1
    return masked, "pii" if spans and spec.pii == "drop" else ""


def _batches(part: Part, spec: CorpusSpec, tally: Tally) -> Iterator[list[tuple[str, str, str, bool]]]:
    """(source, id, normalised text, whether its file is one of code) of about `CHUNK` characters at a
    time.
    """
    normalise = normaliser(spec.normalise)
    batch: list[tuple[str, str, str, bool]] = []
    size = 0

    def normalised(rows: list[tuple[str, str, str, bool]]) -> list[tuple[str, str, str, bool]]:
        for source, group in itertools.groupby(rows, lambda row: row[0]):
            tally.add(source, [text for _, _, text, _ in group])
        texts = normalise([text for _, _, text, _ in rows])
        return [(source, at, text, code) for (source, at, _, code), text in zip(rows, texts, strict=True)]

    for piece in part.pieces:
        for found in documents(piece, spec):
            where = f"{piece.source}/{found.where}"
            if found.trouble:
                tally.add(piece.source, [found.text])
                _trouble(found, piece.source, where, spec, tally)
                continue
            batch.append((piece.source, where, found.text, piece.kind == "code"))
            size += len(found.text)
            if size >= CHUNK or len(batch) == MOST_TEXTS:
                yield normalised(batch)
                batch, size = [], 0
    if batch:
        yield normalised(batch)


def _trouble(found: Document, source: str, where: str, spec: CorpusSpec, tally: Tally) -> None:
    told = f"{found.where}: {found.trouble.replace('_', ' ')}, {found.why}"
    if spec.broken == "refuse" and found.trouble != "too_long":
        raise DataError(
            f"Raw text was to be read whole; {told}. Mend it or leave it out, or pass `--broken skip` to "
            f"count and "
            f"skip what cannot be read."
        )
    tally.drop(found.trouble, source, where, "", found.why, most=spec.samples)
    if TROUBLES[found.trouble] or len(tally.troubles) < 100:
        tally.troubles.append(told)


def schema() -> Any:
    """Columns of a sifted part."""
    import pyarrow as pa

    text, name = pa.large_string(), pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        {
            "text": text, "source": name, "id": pa.string(), "language": name, "exact": pa.binary(16),
            "keys": pa.binary(), "marks": pa.binary(), "lines": pa.binary(),
        }
    )  # fmt: skip


def _table(good: Good, spec: CorpusSpec) -> Any:
    import pyarrow as pa

    n = len(good.texts)
    keys, marks = [b""] * n, [b""] * n
    if spec.twins.near is not None:
        by_band, by_text = signatures(shingle_sets(good.words, spec.twins.ngram))
        keys = [row.tobytes() for row in by_band.T]
        marks = [row.tobytes() for row in by_text]
    of_lines = [line_hashes(text, spec.twins.line_length) if spec.twins.lines else b"" for text in good.texts]
    columns = [
        good.texts,
        good.sources,
        good.ids,
        good.languages,
        [*map(exact_hash, good.texts)],
        keys,
        marks,
        of_lines,
    ]
    made = [pa.array(values, field_.type) for values, field_ in zip(columns, schema(), strict=True)]
    return pa.Table.from_arrays(made, schema=schema())


def exact_hash(text: str) -> bytes:
    """16 bytes that texts share which are equal but for case and white space."""
    if text.isascii():  # the same without an object for every word
        raw = text.encode().lower().translate(_SPACES).strip()
        plain = b" ".join(raw.split()) if b"  " in raw else raw
    else:
        plain = " ".join(text.lower().split()).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(plain, digest_size=16).digest()


def shingle_sets(words: Words, n: int, *, most: int = 1 << 30) -> Shingles:
    """The set of n-grams of each text, its `most` smallest hashes; of a text with fewer units the whole of
    it.
    """
    sizes = np.diff(words.edges)
    at, hashes = ngrams(words, n)
    owners, values = [words.owner[at]], [hashes]
    for size in range(1, n):
        short = np.flatnonzero(sizes == size)
        if len(short):
            owners.append(short)
            values.append(ngrams(words.of(short), size)[1])
    return sets_of(np.concatenate(owners), np.concatenate(values), len(sizes), most=most)


def line_hashes(text: str, least: int) -> bytes:
    """8 bytes of each different line of at least so many characters, end to end."""
    lines = {line.strip() for line in text.split("\n")}
    return b"".join(sorted(line_hash(line) for line in lines if len(line) >= least))


def line_hash(line: str) -> bytes:
    """8 bytes of a line."""
    return hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def sifted(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """(part, batch of rows) of sifted parts, these columns only."""
    import pyarrow.parquet as pq

    for i, path in enumerate(paths):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096, columns=[*columns]):
                yield i, batch
