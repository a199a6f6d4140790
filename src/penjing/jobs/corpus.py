"""`penjing corpus prepare`: raw text to a corpus folder, part by part, so that a kill costs one part.

1. Every part is sifted by itself (`corpus.sift`): read, normalised, judged. 2. Twins are found over all
parts (`corpus.twins`). 3. Every part is settled into its shards (`corpus.shards`). 4. A manifest, samples of
what was dropped and a page say what happened. What stages 1 and 3 have done stands in `.work`, and a second
call goes on there.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from penjing.corpus import asked
from penjing.corpus.asked import CorpusSpec
from penjing.corpus.contamination import Against, against
from penjing.corpus.corpus import MANIFEST, Corpus, open_corpus
from penjing.corpus.diversity import diversity, sampled
from penjing.corpus.inputs import File, Part, files_of, parts_of
from penjing.corpus.language import known_languages
from penjing.corpus.normalise import normaliser
from penjing.corpus.shards import SPLITS, Fate, settle, utf8_of
from penjing.corpus.sift import sift
from penjing.corpus.twins import Fates, find_twins
from penjing.corpus.units import hash_of
from penjing.errors import DataError, NotSupported, SpecError, nearest
from penjing.files import sweep, write_json, write_text
from penjing.jobs.corpus_sums import manifest_of
from penjing.jobs.crew import each
from penjing.jobs.news import News, Tell, silent
from penjing.plural import counted
from penjing.threads import cores


def prepare(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    sets: Iterable[str] = (),
    processes: int | None = None,
    on: str | None = None,
    fresh: bool = False,
    tell: Tell = silent,
    **keywords: Any,
) -> Corpus:
    """Prepare a corpus as a spec asks, or go on with one that was interrupted.

    Args:
        source, sets, keywords: the spec, as `corpus.asked.read` takes it.
        processes: of this machine; as many as there are cores when None. Scripts that ask for more than one
        need
            `if __name__ == "__main__":`.
        on: `ray://host:port`, or `ray` for this machine's own; all machines must see the same folders.
        fresh: throw away what stands in the folder, finished or not.

    Raises:
        SpecError: the spec is not valid, or the folder holds another corpus.
        DataError: nothing to read, nothing left, or something is broken and `broken` is `refuse`.
        NotSupported: an optional package or Ray is missing.
    """
    begun = time.monotonic()
    spec = asked.read(source, sets=sets, **keywords)
    folder = Path(spec.out).expanduser()
    files = _raw_files(spec, folder)
    _need(spec, files)
    plan = _plan(spec, files)
    if not _to_do(folder, plan, fresh=fresh):
        tell(News("note", f"{folder} stands already, made of the same files with the same settings"))
        return open_corpus(folder)
    work = folder / ".work"
    parts = parts_of(files, spec)
    write_json(work / "plan.json", {"plan": plan})
    read_mib = sum(file.size for file in files) / 2**20
    tell(
        News("stage", f"{counted(len(files), 'file')}, {read_mib:,.1f} MiB, in {counted(len(parts), 'part')}")
    )
    crew = functools.partial(_carry, processes=processes or cores(), on=on, tell=tell)
    sifted = _sift(parts, spec, work, crew, tell)
    tell(News("stage", "twins: equal and nearly equal documents, over all parts"))
    fates = find_twins(sifted, spec)
    settled = _settle(sifted, fates, spec, folder, crew)
    manifest = manifest_of(spec, plan, sifted, settled, made_by=f"penjing {_version()}")
    manifest["seconds"] = round(time.monotonic() - begun, 1)
    _finish(folder, spec, manifest, tell)
    return open_corpus(folder)


def foresee(
    source: str | Path | Mapping[str, Any] | None = None, *, sets: Iterable[str] = (), **keywords: Any
) -> dict[str, Any]:
    """What `prepare` would read, by source, and its whole settings; no text is read.

    Raises:
        SpecError, DataError, NotSupported: what `prepare` would end with before its first part.
    """
    spec = asked.read(source, sets=sets, **keywords)
    files = _raw_files(spec, Path(spec.out).expanduser())
    _need(spec, files)
    sources: dict[str, dict[str, Any]] = {}
    for file in files:
        of = sources.setdefault(file.source, {"files": 0, "bytes": 0, "kinds": {}})
        of["files"] += 1
        of["bytes"] += file.size
        of["kinds"][file.kind] = of["kinds"].get(file.kind, 0) + 1
    return {"sources": sources, "parts": len(parts_of(files, spec)), "settings": spec.written()}


def _raw_files(spec: CorpusSpec, folder: Path) -> list[File]:
    """What is to be read; a corpus that lies within its own raw text (`prepare . -o corpus`) is not."""
    files = files_of(spec)
    if _is_corpus(folder):
        own = folder.resolve()
        files = [file for file in files if own not in file.path.resolve().parents]
    if not files:
        raise DataError(
            f"Raw text was wanted; all files lie in {folder}, the corpus that is made. Name others."
        )
    return files


def _is_corpus(folder: Path) -> bool:
    """Whether a corpus stands in a folder, finished or not."""
    return (folder / MANIFEST).is_file() or (folder / ".work").is_dir()


def _need(spec: CorpusSpec, files: Sequence[File]) -> None:
    """What the spec asks for is there, before hours of work."""
    normaliser(spec.normalise)
    there = {file.source for file in files}
    for name in spec.weights or {}:
        if name not in there:
            raise SpecError(
                f"`weights.{name}` names no source.{nearest(name, there)} Sources: "
                f"{', '.join(sorted(there))}."
            )
    if lacking := sorted(there.difference(spec.weights or there)):
        raise SpecError(
            f"`weights` must give every source a share; it leaves out {', '.join(lacking[:8])}. Give each "
            "one, or leave the source out of `raw`."
        )
    known = known_languages(spec.language.by)
    for name in spec.language.keep or ():
        if name not in known:
            raise SpecError(
                f"`language.keep` names `{name}`, which `language.by: {spec.language.by}` does not "
                f"tell.{nearest(name, known)} It tells {', '.join(known)}."
            )
    pdf = next((file for file in files if file.kind == "pdf"), None)
    if pdf is not None:
        import importlib.util

        if importlib.util.find_spec("pypdf") is None:
            raise NotSupported(
                f"{pdf.name} is a PDF; reading its text needs pypdf, which is not installed. Run `pip "
                f"install "
                f"'penjing[corpus]'`, or leave PDFs out."
            )


def _plan(spec: CorpusSpec, files: Sequence[File]) -> str:
    """A hash of all that decides what the corpus will be."""
    settings = {key: value for key, value in spec.written().items() if key not in ("out", "raw")}
    there = [(f.source, f.name, f.size, f.path.stat().st_mtime_ns) for f in files]
    tests = [(path, Path(path).stat().st_mtime_ns if Path(path).exists() else 0) for path in spec.against]
    # Parts whose units have other hashes are not of one corpus: twins would not be seen.
    said = json.dumps(
        [_version(), hash_of("unit"), settings, there, tests], ensure_ascii=True, sort_keys=True
    )
    return hashlib.sha256(said.encode()).hexdigest()


def _version() -> str:
    return importlib.metadata.version("penjing")


def _to_do(folder: Path, plan: str, *, fresh: bool) -> bool:
    """Whether there is work; what is in the way is removed where `fresh`, and refused otherwise."""
    ours = _is_corpus(folder)
    if fresh and ours:
        write_json(folder / ".work" / "plan.json", {"plan": None})  # killed, it can only be begun anew
        (folder / MANIFEST).unlink(missing_ok=True)  # first: it says that the corpus is whole
        for name in ("dropped", *SPLITS, ".work"):
            shutil.rmtree(folder / name, ignore_errors=True)
    for path, state in (
        (folder / MANIFEST, "a finished corpus"),
        (folder / ".work" / "plan.json", "the beginnings of one"),
    ):
        if path.is_file():
            same = json.loads(path.read_text(encoding="utf-8")).get("plan") == plan
            if not same:
                raise SpecError(
                    f"A corpus was to be prepared in {folder}; it holds {state}, of other files or "
                    f"settings. Choose "
                    f"another folder with `-o`, or pass `--fresh` to throw it away."
                )
            if path.name == MANIFEST:
                return False
    foreign = [] if ours or not folder.is_dir() else [p.name for p in folder.iterdir()]
    if foreign:
        raise SpecError(
            f"A corpus was to be prepared in {folder}; other things are there: "
            f"{', '.join(sorted(foreign)[:5])}. Choose an empty or new folder with `-o`."
        )
    return True


def _carry(
    task: Any, calls: Sequence[tuple[Any, ...]], what: str, *, processes: int, on: str | None, tell: Tell
) -> None:
    tell(News("stage", what))
    for done in each(task, calls, processes=processes, on=on):
        tell(News("progress", what, done, len(calls)))


def _sift(parts: Sequence[Part], spec: CorpusSpec, work: Path, crew: Any, tell: Tell) -> list[Path]:
    targets = [work / "sifted" / f"{part.index:05d}.parquet" for part in parts]
    open_ = [
        (part, target)
        for part, target in zip(parts, targets, strict=True)
        if not target.with_suffix(".json").is_file()
    ]
    if len(open_) < len(parts):
        tell(News("note", f"{counted(len(parts) - len(open_), 'part')} of {len(parts):,} sifted before"))
    if open_:
        sweep(work / "sifted")
        known = _against(spec, tell)
        crew(sift, [(part, spec, known, target.absolute()) for part, target in open_], "sifting")
    return targets


def _against(spec: CorpusSpec, tell: Tell) -> Against | None:
    if not spec.against:
        return None
    from penjing.data.sources import tables

    texts: dict[str, None] = {}
    for table in tables(list(spec.against)):
        for _, cells in table.rows(list(table.columns)):
            texts.update(dict.fromkeys(text for cell in cells for text in _texts(cell)))
    known = against(texts, n=spec.against_ngram)
    short = f", {known.n_short:,} too short to be looked for" if known.n_short else ""
    tell(News("note", f"{counted(known.n_texts, 'text')} of test sets may not be in the corpus{short}"))
    return known


def _texts(cell: Any) -> Iterator[str]:
    """Every string of a cell, at any depth; any of a row's texts may have leaked."""
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, Mapping | list | tuple):
        for inner in cell.values() if isinstance(cell, Mapping) else cell:
            yield from _texts(inner)


def _settle(sifted: Sequence[Path], fates: Fates, spec: CorpusSpec, folder: Path, crew: Any) -> list[Path]:
    reports = [folder / ".work" / "settled" / f"{i:05d}.json" for i in range(len(sifted))]
    calls = []
    for i, (path, report) in enumerate(zip(sifted, reports, strict=True)):
        if not report.is_file():
            here = slice(fates.starts[i], fates.starts[i + 1])
            fate = Fate(fates.fate[here], fates.valid[here], fates.lines)
            calls.append((i, path.absolute(), fate, spec, folder.absolute(), report.absolute()))
    for split in SPLITS:
        sweep(folder / split)
    if calls:
        crew(settle, calls, "writing shards")
    return reports


def _finish(folder: Path, spec: CorpusSpec, manifest: dict[str, Any], tell: Tell) -> None:
    """Samples, diversity, page; the manifest last, for it says that the corpus is whole."""
    import yaml

    from penjing.jobs.corpus_page import write_page

    samples = manifest.pop("samples")
    for reason, rows in samples.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / "dropped" / f"{reason}.jsonl", lines.encode("utf-8", "replace").decode())
    tell(News("stage", "what the sources are like"))
    write_json(folder / ".work" / MANIFEST, manifest)
    characters = {name: one["train"]["characters"] for name, one in manifest["sources"].items()}
    drawn = sampled(_train_rows(folder, manifest), characters)
    with ThreadPoolExecutor(cores()) as pool:  # sorts and zlib let other threads work
        for name, found in zip(drawn, pool.map(diversity, drawn.values()), strict=True):
            manifest["sources"][name]["diversity"] = found
    write_text(folder / "corpus.yaml", yaml.safe_dump(spec.written(), sort_keys=False, allow_unicode=True))
    write_page(folder, manifest, samples)
    write_json(folder / MANIFEST, manifest)
    shutil.rmtree(folder / ".work", ignore_errors=True)


def _train_rows(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[memoryview, str]]:
    import pyarrow.parquet as pq

    for name in manifest["shards"]:
        if name.startswith("train/"):
            with pq.ParquetFile(folder / name) as file:
                for batch in file.iter_batches(batch_size=1024, columns=["text", "source"]):
                    yield from zip(utf8_of(batch.column(0)), batch.column(1).to_pylist(), strict=True)
