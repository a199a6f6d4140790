"""Search over a corpus: vectors of its texts in one mapped file, found by matrix products or by a graph.

An index is a folder:
    card.json            model, how many texts, width, what wrote it
    vectors.safetensors  vectors (n, D) of length one, and where each text begins in texts.jsonl
    texts.jsonl          the texts, one a line
    graph.faiss          with `graph`: FAISS's HNSW over the vectors, for corpora too large to compare with
    all
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from penjing.bundle import Bundle, load
from penjing.data.mapped import mapped
from penjing.data.read import read
from penjing.errors import DataError, NotSupported, SpecError
from penjing.files import new_folder, refuse_taken, standing, write_json
from penjing.jobs.news import News, Tell, silent

FORMAT = "penjing index 1"
PORTION = 4096  # texts embedded at once
BLOCK, QUERIES = 65_536, 256  # vectors compared at once, with so many queries
LINKS, EFFORT = 32, 128  # of HNSW: neighbours a node, candidates while it is built and searched


@dataclass(frozen=True)
class Hit:
    """A text that was found: its place in the corpus, how near it is (cosine, or a re-ranker's score)."""

    row: int
    score: float
    text: str


@dataclass(frozen=True)
class Index:
    """An opened index; `find` takes vectors, `search` texts. It stays what it is where another one is put in
    its folder meanwhile."""

    folder: Path
    card: dict[str, Any]
    vectors: np.ndarray  # (n, D) float32, memory-mapped
    starts: np.ndarray  # (n + 1,) int64, bytes in texts.jsonl
    lines: np.ndarray  # (starts[n],) uint8, texts.jsonl, memory-mapped

    def __len__(self) -> int:
        return len(self.vectors)

    def text(self, row: int) -> str:
        """One text of the corpus."""
        line = self.lines[self.starts[row] : self.starts[row + 1]].tobytes()
        return str(json.loads(line.decode("utf-8", "surrogatepass")))

    def find(self, queries: np.ndarray, k: int = 10, *, exact: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """(q, k) cosines, falling, and the rows they are of; equal ones in the corpus's order.

        Raises:
            NotSupported: not `exact`, and the index has no graph, or FAISS is not installed.
        """
        k = min(k, len(self))
        return nearest(self.vectors, queries, k) if exact else self._by_graph(queries, k)

    def search(
        self,
        bundle: Bundle,
        queries: Sequence[str],
        k: int = 10,
        *,
        exact: bool = True,
        rerank: Bundle | None = None,
        among: int = 50,
    ) -> list[list[Hit]]:
        """The k nearest texts of each query. With `rerank`, a bundle of task `pair`, the nearest `among` are
        ordered by what it says of query and text."""
        _same_model(self, bundle)
        near, rows = self.find(bundle.embed(queries), max(k, among) if rerank else k, exact=exact)
        found = [
            [Hit(int(row), float(score), self.text(int(row))) for score, row in zip(own, places, strict=True)]
            for own, places in zip(near, rows, strict=True)
        ]
        if rerank is None:
            return found
        return [_reranked(rerank, query, hits)[:k] for query, hits in zip(queries, found, strict=True)]

    def _by_graph(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self._graph.hnsw.efSearch = max(EFFORT, k)
        near, rows = self._graph.search(np.ascontiguousarray(queries, np.float32), k)
        return near, rows

    @cached_property
    def _graph(self) -> Any:
        path = self.folder / "graph.faiss"
        graph = _faiss().read_index(str(path)) if path.is_file() else None
        if graph is None or graph.ntotal != len(self):
            found = "none" if graph is None else f"one of {graph.ntotal:,} texts, not of {len(self):,}"
            raise NotSupported(
                f"A search by graph was wanted; {self.folder} has {found}. Make the index with `graph=True` "
                f"(`--graph`), or search exactly."
            )
        return graph


def index(
    model: Bundle | str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    graph: bool = False,
    text: str | None = None,
    base: str | None = None,
    tell: Tell = silent,
) -> Index:
    """Embed the texts of a corpus once and write them as an index.

    Raises:
        DataError: the texts cannot be read.
        NotSupported: the bundle makes no vectors; `graph`, and FAISS is not installed.
        SpecError: the folder holds something other than an index. CannotWrite: no room or no right.
    """
    from safetensors.numpy import save_file

    place = Path(out)
    refuse_taken(place, "vectors.safetensors")
    bundle = model if isinstance(model, Bundle) else load(model, base=base)
    faiss = _faiss() if graph else None
    texts = read(data, text=text, labelled=False).texts
    vectors = np.zeros((len(texts), 0), np.float32)
    for begin in range(0, len(texts), PORTION):
        own = bundle.embed(texts[begin : begin + PORTION])
        vectors = vectors if begin else np.empty((len(texts), own.shape[1]), np.float32)
        vectors[begin : begin + PORTION] = own
        tell(News("progress", "embedding", min(begin + PORTION, len(texts)), len(texts)))
    with new_folder(place) as aside:
        starts = np.zeros(len(texts) + 1, np.int64)
        with (aside / "texts.jsonl").open("wb") as stream:
            for row, one in enumerate(texts):
                line = (json.dumps(one, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
                starts[row + 1] = starts[row] + stream.write(line)
        save_file({"vectors": vectors, "starts": starts}, str(aside / "vectors.safetensors"))
        if faiss is not None:
            made = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
            made.hnsw.efConstruction = EFFORT
            made.add(vectors)
            faiss.write_index(made, str(aside / "graph.faiss"))
        card = {"format": FORMAT, "model": str(bundle.folder.absolute()), "made_by": _mark(bundle)}
        write_json(aside / "card.json", {**card, "texts": len(texts), "width": vectors.shape[1]})
    return opened(place)


def opened(folder: str | Path) -> Index:
    """An index that was written before.

    Raises:
        NotSupported: it is none, or damaged.
    """
    place = standing(Path(folder))
    try:
        card = json.loads((place / "card.json").read_text(encoding="utf-8"))
        _, arrays = mapped(place / "vectors.safetensors")
        lines = np.memmap(place / "texts.jsonl", np.uint8, "r")
        found = Index(Path(folder), card, arrays["vectors"], np.array(arrays["starts"]), lines)
        whole = card["format"] == FORMAT and len(found) == card["texts"] == len(found.starts) - 1
        whole = whole and len(lines) == found.starts[-1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotSupported(
            f"An index was wanted in {place}; it cannot be opened as one ({type(error).__name__}: {error}). "
            f"Give the folder that `penjing index` wrote, or make it anew."
        ) from error
    if not whole:
        raise NotSupported(f"The index in {place} is damaged: its files do not agree. Make it anew.")
    return found


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(q, k) products and rows of the best over all vectors, falling, equal ones in the vectors' order; a
    block of both at a time."""
    found = [_nearest(vectors, queries[at : at + QUERIES], k) for at in range(0, len(queries), QUERIES)]
    near, rows = zip(*found or [_nearest(vectors[:0], queries, k)], strict=True)
    return np.concatenate(near), np.concatenate(rows)


def _nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    best = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for begin in range(0, len(vectors), BLOCK):
        near = queries @ np.asarray(vectors[begin : begin + BLOCK], np.float32).T
        kept = _largest(near, min(k, near.shape[1]))
        best = np.concatenate([best, np.take_along_axis(near, kept, 1)], axis=1)
        rows = np.concatenate([rows, kept + begin], axis=1)
    order = np.lexsort((rows, -best), axis=1)[:, :k]
    return np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)


def _largest(near: np.ndarray, k: int) -> np.ndarray:
    """(q, k) places of the largest of each row; of those that equal the least of them, the first."""
    edges = np.partition(near, -k, axis=1)[:, -k]
    found = np.empty((len(near), k), np.int64)
    for own, row, edge in zip(found, near, edges, strict=True):
        places = np.flatnonzero(row >= edge)
        if len(places) > k:
            ties = row[places] == edge
            places = places[~ties | (np.cumsum(ties) <= k - np.sum(~ties))]
        own[:] = places
    return found


def _reranked(rerank: Bundle, query: str, hits: Sequence[Hit]) -> list[Hit]:
    if rerank.task.name != "pair":
        raise SpecError(
            f"`rerank` wants a bundle of task `pair`; {rerank!r} is one of `{rerank.task.name}`. Tune one "
            f"with `task: pair`."
        )
    answers = rerank.predict([(query, hit.text) for hit in hits])
    last = rerank.labels[-1]
    scores = [one["score"] if "score" in one else one["scores"][last] for one in answers]
    ranked = [Hit(hit.row, float(score), hit.text) for hit, score in zip(hits, scores, strict=True)]
    return sorted(ranked, key=lambda hit: (-hit.score, hit.row))


def _mark(bundle: Bundle) -> str:
    """What tells the weights of a bundle apart: the hash of its files' hashes."""
    import hashlib

    return hashlib.sha256(json.dumps(bundle.card["files"], sort_keys=True).encode()).hexdigest()


def _same_model(index: Index, bundle: Bundle) -> None:
    if index.card["made_by"] != _mark(bundle):
        raise DataError(
            f"Queries must be embedded by the bundle that made the index in {index.folder}, which lay in "
            f"{index.card['model']}; {bundle.folder} holds other weights. Give that bundle, or make the "
            "index anew."
        )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise NotSupported(
            "A graph over vectors is made by FAISS, which is not installed. `pip install 'penjing[index]'`, "
            "or search exactly."
        ) from error
    return faiss
