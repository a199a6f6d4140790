"""From a spec to an objective's job: a corpus, as pieces of tokens on disk, and the base it feeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from penjing import spec as specs
from penjing.bundle import Bundle
from penjing.corpus.corpus import Corpus, open_corpus
from penjing.data.feed import Document, Stream, feed_of, pieces_of
from penjing.data.mixture import mixed_order, refuse_empty, shares_of
from penjing.data.vocab.segment import words as segmented
from penjing.device import Machine, choose
from penjing.errors import DataError, SpecError
from penjing.jobs.grown import conclude_grown
from penjing.jobs.job import Job
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.odd import unknown_said
from penjing.jobs.prepare import NO_DATA, Data, bound, load_base, max_length, task_of, techniques_of
from penjing.jobs.probing import prober
from penjing.models.load import Base
from penjing.plural import counted
from penjing.records import NO_ROWS, Part
from penjing.spec import Spec
from penjing.task import Feed, Task

MOST_VALID = 2_000  # pieces that a validation goes over
READ = ("text", "encoding")  # keys of `data` that say how a corpus is read
HOLDS = 10_000  # buckets of documents, of which a share is held out


@dataclass(frozen=True)
class Texts:
    """The documents of all corpora that a spec names."""

    corpora: tuple[Corpus, ...]
    held: tuple[Corpus, ...]  # of validation, where the spec names them
    share: float  # of documents to hold out where no corpus brings validation texts
    seed: int

    @property
    def key(self) -> str:
        """What tells these documents from others."""
        names = [one.sha256 for one in (*self.corpora, *self.held)]
        return "\0".join([*names, str(len(self.held)), f"{self.share:g}", str(self.seed)])

    def train(self) -> Iterator[Document]:
        """Documents to learn from."""
        own = self._own()
        for corpus in self.corpora:
            for text, source in corpus.texts("train"):
                if own or not self._is_held(text):
                    yield Document(text, source)

    def valid(self) -> Iterator[Document]:
        """Documents to validate on."""
        if self._own():
            for corpus in self.held or self.corpora:
                for text, source in corpus.texts("train" if self.held else "valid"):
                    yield Document(text, source)
            return
        for corpus in self.corpora:
            for text, source in corpus.texts("train"):
                if self._is_held(text):
                    yield Document(text, source)

    def _own(self) -> bool:
        """Whether validation texts are there, or to be held out."""
        return bool(self.held) or any(next(one.texts("valid"), None) for one in self.corpora)

    def _is_held(self, text: str) -> bool:
        digest = hashlib.blake2b(f"{self.seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest(), "big") % HOLDS < self.share * HOLDS


def opened_corpus(spec: Spec, tell: Tell = silent, machine: Machine | None = None) -> Job:
    """Read the corpus and load the base that a spec of an objective names; `machine` where it was chosen
    before.

    Raises:
        SpecError: no corpus, keys that an objective does not use, weights of other sources.
        DataError: the corpus cannot be read, or holds too little.
    """
    task = task_of(spec)
    techniques_of(spec)
    refuse_unused(spec, task)
    machine = machine or choose(spec.device, spec.precision)
    texts = texts_of(spec)
    base = load_base(spec, machine, tell)
    task = bound(task, base, NO_DATA)
    for note in task.notes:
        tell(News("note", note))
    data, parts = corpus_of(spec, task, texts, base, tell)
    weights = spec.data.weights or _weights_of(texts, tell)
    if weights:
        shares = shares_of(weights, data.names)
        refuse_empty(parts[0], data.names)
        task = replace(task, order=mixed_order(shares))
    probe = prober(spec.data.probe, base, seed=spec.seed) if spec.data.probe else None
    return Job(spec, task, machine, data, base, tell, parts, conclude_grown, probe)


def _weights_of(texts: Texts, tell: Tell) -> dict[str, float] | None:
    """How a corpus was prepared to be drawn, where that is otherwise than as its sources lie."""
    weighed = [one for one in texts.corpora if one.weighed]
    if not weighed:
        return None
    if len(texts.corpora) > 1:
        tell(
            News(
                "note",
                f"the weights that {weighed[0].folder} was prepared with hold for it alone; its texts and "
                "those of the others are drawn as they lie (`data.weights` mixes them otherwise)",
            )
        )
        return None
    said = ", ".join(f"{name} {weight:.3f}" for name, weight in weighed[0].weights.items())
    tell(News("note", f"sources are drawn by the weights of {weighed[0].folder}: {said}"))
    return {name: weight for name, weight in weighed[0].weights.items() if weight}


def corpus_of(
    spec: Spec, task: Task, texts: Texts, base: Base, tell: Tell = silent
) -> tuple[Data, tuple[Part, Part]]:
    """Sources and notes of a corpus, and its pieces to learn from and to validate on."""
    assert task.feed is not None
    first = _stream(spec, task.feed, texts, "train", base.tokenizer, tell)
    second = _stream(spec, task.feed, texts, "valid", base.tokenizer, tell)
    assert first is not None
    longest = max_length(spec, base)
    (train, valid), sources, notes = _parts(spec, task.feed, first, second, longest)
    notes.append(
        f"{counted(len(train), 'piece')} of at most {longest} tokens to learn from, "
        f"{len(valid):,} to validate on; {counted(len(sources), 'source')}"
    )
    if unknown := unknown_said(first.ids, base):
        notes.append(unknown)
    about = {"source": spec.data.train, "rows": len(train), "sha256": first.sha256}
    also = {"source": spec.data.valid, "rows": len(valid), "sha256": second.sha256 if second else ""}
    return Data(NO_ROWS, NO_ROWS, None, list(sources), {"train": about, "valid": also}, tuple(notes)), (
        train,
        valid,
    )


def corpus_to_judge(
    bundle: Bundle, data: str | Path | Sequence[str | Path], reading: dict[str, Any]
) -> tuple[Part, list[str]]:
    """All text of a corpus as a bundle's objective reads it, and its sources."""
    assert bundle.task.feed is not None
    given = [data] if isinstance(data, str | Path) else data
    kept = {key: reading[key] for key in READ if reading.get(key)}
    spec = specs.read(train=[str(one) for one in given], task="masked", **kept)
    corpora = texts_of(spec).corpora

    def documents() -> Iterator[Document]:
        for one in corpora:
            for split in ("train", "valid"):
                yield from (Document(*row) for row in one.texts(split))

    stream = _fed(bundle.task.feed, documents, bundle.tokenizer, "", False, lambda done: None)
    return pieces_of(stream, bundle.task.feed, bundle.card["max_length"]), list(stream.sources)


def refuse_unused(spec: Spec, task: Task) -> None:
    """Keys of `data` that an objective would ignore, and the one that it needs.

    Raises:
        SpecError: one of the first is given, or the second is not.
    """
    data = spec.data
    if not data.train:
        raise SpecError(
            "`data.train` must name the corpus to learn from: a folder that `penjing corpus prepare` made, "
            "or files of text; it is empty. Say `--train corpus/`."
        )
    given = next((key for key in ("test", "label", "delimiter") if getattr(data, key) is not None), None)
    if given:
        raise SpecError(
            f"`data.{given}` is given; `task: {task.name}` learns from text alone and would ignore it. Leave "
            f"it out{'; `penjing evaluate` scores a finished run on other text' if given == 'test' else ''}."
        )


def texts_of(spec: Spec) -> Texts:
    """The documents that a spec names."""

    def corpora(given: Any) -> tuple[Corpus, ...]:
        names = [given] if isinstance(given, str) else given or []
        reading = {key: getattr(spec.data, key) for key in ("documents", *READ)}
        return tuple(open_corpus(name, **reading) for name in names)

    return Texts(corpora(spec.data.train), corpora(spec.data.valid), spec.data.valid_share, spec.seed)


def _stream(spec: Spec, feed: Feed, texts: Texts, name: str, tokenizer: Any, tell: Tell) -> Stream | None:
    """The tokens of one split; None where no document is held out."""
    documents = texts.train if name == "train" else texts.valid
    if name == "valid" and next(iter(documents()), None) is None:
        return None
    tell(News("stage", f"tokenizing the {'corpus' if name == 'train' else 'validation texts'}"))
    total = sum(sum(one.characters.values()) for one in texts.corpora)

    def progress(done: int) -> None:
        tell(News("progress", "bytes of text", done, max(done, total)))

    return _fed(feed, documents, tokenizer, f"{name}\0{texts.key}", spec.data.cache, progress)


def _fed(
    feed: Feed,
    documents: Callable[[], Iterable[Document]],
    tokenizer: Any,
    key: str,
    cache: bool,
    progress: Callable[[int], None],
) -> Stream:
    words = (lambda text: [first for first, _ in segmented(text)]) if feed.heads else None
    return feed_of(documents, tokenizer, feed, key=key, words=words, cache=cache, progress=progress)


def _parts(
    spec: Spec, feed: Feed, first: Stream, second: Stream | None, longest: int
) -> tuple[tuple[Part, Part], tuple[str, ...], list[str]]:
    """Train and validation pieces, the sources in their order, and notes."""
    train, notes = pieces_of(first, feed, longest), []
    sources = first.sources
    if second is None:
        n_valid = min(max(1, round(spec.data.valid_share * len(train))), len(train) - 1)
        if n_valid < 1:
            raise DataError(
                f"{spec.data.train} gives {counted(len(train), 'piece')} of {longest} tokens; one to learn "
                "from and one to validate on were wanted. Give more text, or a smaller `data.max_length`."
            )
        notes.append(f"no document could be held out; the last {n_valid:,} of {len(train):,} pieces are")
        train, valid = between(train, 0, len(train) - n_valid), between(train, len(train) - n_valid, None)
    else:
        valid = pieces_of(second, feed, longest)
        extra = [name for name in second.sources if name not in sources]
        sources = (*sources, *extra)
        place = np.array([sources.index(name) for name in second.sources], np.int64)
        valid.targets[:, 0] = place[valid.targets[:, 0]]
    if len(valid) > MOST_VALID:
        notes.append(f"validations go over {MOST_VALID:,} of {len(valid):,} pieces, evenly chosen")
        chosen = np.linspace(0, len(valid) - 1, MOST_VALID).astype(np.int64)
        valid = _chosen(valid, chosen, feed)
    return (train, valid), sources, notes


def between(part: Part, first: int, last: int | None) -> Part:
    """Neighbouring pieces, which go on where they went on."""
    tokens, stop = part.tokens, len(part) if last is None else last
    low, high = tokens.starts[first], tokens.starts[stop]
    heads = None if tokens.heads is None else tokens.heads[low:high]
    cut = replace(tokens, ids=tokens.ids[low:high], starts=tokens.starts[first : stop + 1] - low, heads=heads)
    return Part(NO_ROWS, cut, part.targets[first:stop].copy())


def _chosen(part: Part, index: np.ndarray, feed: Feed) -> Part:
    """Some pieces. What follows them is not there any more, so each ends for itself."""
    targets = part.targets[index].copy()
    targets[:-1, 2] = 1
    targets[:, 3] = part.targets[index, 3]
    return Part(NO_ROWS, part.tokens.take(index), targets)
