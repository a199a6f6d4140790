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
from penjing.corpus.documents import TROUBLES
from penjing.corpus.inputs import File, Part, files_of, parts_of
from penjing.corpus.language import known_languages
from penjing.corpus.normalise import normaliser
from penjing.corpus.shards import SPLITS, Fate, settle, utf8_of
from penjing.corpus.sift import sift
from penjing.corpus.twins import Fates, find_twins
from penjing.corpus.units import hash_of
from penjing.errors import DataError, NotSupported, SpecError, nearest
from penjing.files import sweep, write_json, write_text
from penjing.jobs.crew import each
from penjing.jobs.news import News, Tell, silent
from penjing.plural import counted
from penjing.threads import cores

COUNTS = ("documents", "characters", "bytes")


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
    manifest = _manifest(spec, plan, sifted, settled)
    manifest["seconds"] = round(time.monotonic() - begun, 1)
    _finish(folder, spec, manifest, tell)
    return open_corpus(folder)


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


def _manifest(spec: CorpusSpec, plan: str, sifted: Sequence[Path], settled: Sequence[Path]) -> dict[str, Any]:
    """What happened to every document, added up over the parts."""
    first = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in sifted]
    last = [json.loads(path.read_text(encoding="utf-8")) for path in settled]
    read = _sums(part["read"] for part in first)
    kept = {split: _sums(part["kept"][split] for part in last) for split in SPLITS}
    shards = {name: one for part in last for name, one in part["shards"].items()}
    characters = {name: kept["train"].get(name, [0, 0, 0])[1] for name in read}
    why = {
        reason: sum(n for part in (*first, *last) for n, *_ in part["dropped"].get(reason, {}).values())
        for reason in sorted({reason for part in (*first, *last) for reason in part["dropped"]})
    }
    troubles = [told for part in first for told in part["troubles"]]
    weights = _weights(spec, characters, why, troubles)
    sources = {
        name: {
            "weight": weights.get(name, 0.0),
            "read": dict(zip(COUNTS, read[name], strict=True)),
            **{split: dict(zip(COUNTS, kept[split].get(name, [0, 0, 0]), strict=True)) for split in SPLITS},
        }
        for name in sorted(read)
    }
    dropped = {}
    for reason in why:
        by_source = _sums(part["dropped"].get(reason, {}) for part in [*first, *last])
        dropped[reason] = {
            "documents": sum(one[0] for one in by_source.values()),
            "characters": sum(one[1] for one in by_source.values()),
            "sources": {name: one[0] for name, one in sorted(by_source.items())},
        }
    content = "".join(f"{name}\0{one['content']}\n" for name, one in sorted(shards.items()))
    return {
        "plan": plan,
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "made_by": f"penjing {_version()}",
        "sources": sources,
        "dropped": dropped,
        "samples": {reason: _samples([*first, *last], reason, spec.samples) for reason in why},
        "masked": _added(part["masked"] for part in first),
        "languages": _added(part["languages"] for part in last),
        "troubles": troubles[:1000],
        "shards": shards,
        "settings": spec.written(),
    }


def _sums(counts: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for part in counts:
        for name, numbers in part.items():
            found[name] = [a + b for a, b in zip(found.get(name, [0] * len(numbers)), numbers, strict=True)]
    return found


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in counts:
        for name, n in part.items():
            found[name] = found.get(name, 0) + n
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _samples(parts: Sequence[Mapping[str, Any]], reason: str, most: int) -> list[dict[str, str]]:
    """Evenly from all parts."""
    every = [one for part in parts for one in part["samples"].get(reason, [])]
    return [every[i * len(every) // most] for i in range(most)] if len(every) > most else every


def _weights(
    spec: CorpusSpec, characters: Mapping[str, int], why: Mapping[str, int], troubles: Sequence[str]
) -> dict[str, float]:
    """Share of each source in what is drawn: as given, or by characters ** exponent."""
    there = {name: size for name, size in characters.items() if size}
    if not there:
        told = ", ".join(f"{n:,} as `{reason}`" for reason, n in sorted(why.items(), key=lambda one: -one[1]))
        ways = []
        if any(reason not in TROUBLES for reason in why):
            ways.append("the limits behind these reasons, such as `--set quality=null` for those of quality")
        if "too_long" in why:
            ways.append(f"`--set longest={10 * spec.longest}` for `too_long`")
        if troubles:
            ways.append(f"what cannot be read ({troubles[0].rstrip('.')})")
        raise DataError(
            f"A corpus was to be made; every document was dropped: {told or 'there was none'}. Change "
            f"{'; '.join(ways) or 'what is read'}."
        )
    wanted = spec.weights
    if wanted is None:
        wanted = {name: size**spec.exponent for name, size in there.items()}
    total = sum(wanted[name] for name in there)
    return {name: wanted[name] / total for name in there}


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
