"""Parquet files and Hugging Face datasets (saved on disk, or `hf:name` from the hub) to a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.data.features import class_names
from penjing.data.table import Cells, Table
from penjing.errors import DataError, NotSupported, nearest

_SPLITS = ("train", "test", "validation", "valid", "dev")


def read_parquet(path: Path, *, name: str) -> Table:
    """The table of a Parquet file, read batch by batch, asked-for columns only. Lines are row numbers.

    Raises:
        DataError: broken, or without rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{name} was to be a Parquet file; it cannot be read: {error}. It may be cut short; copy it anew."
        ) from error
    schema = file.schema_arrow
    if file.metadata.num_rows == 0:
        raise DataError(f"{name} has columns ({', '.join(schema.names)}) and no rows. Give another file.")
    file.close()
    written = json.loads((schema.metadata or {}).get(b"huggingface") or b"{}")
    names = class_names(written.get("info", {}).get("features", {}))

    def rows(wanted: Sequence[str]) -> Cells:
        line = 0
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(columns=[*wanted]):
                columns = [batch.column(column).to_pylist() for column in wanted]
                for cells in zip(*columns, strict=True):
                    line += 1
                    yield line, cells

    return Table(name, tuple(schema.names), rows, (name,), typed=True, names=names)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved(folder: Path, *, name: str, key: str | None = None) -> Table:
    """The table of a folder that `datasets.save_to_disk` wrote; `key` is the split."""
    datasets = _datasets(name)
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} was to be a saved dataset; it cannot be loaded: {error}. Save it anew."
        ) from error
    return _table(name, *_one_split(name, found, key))


def read_hub(source: str) -> Table:
    """The table of `hf:name`, `hf:name:split` or `hf:name:config:split`.

    Raises:
        DataError: no such set, configuration or split; the hub cannot be reached.
        NotSupported: the package `datasets` is not installed.
    """
    datasets = _datasets(source)
    repo, _, rest = source.removeprefix("hf:").partition(":")
    config, _, split = rest.partition(":")
    if config in _SPLITS and not split:
        config, split = "", config
    try:
        found = datasets.load_dataset(repo, config or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"`{source}` was to be loaded from the Hugging Face hub; it could not be: {reason}. Check the "
            f"name; without network "
            f"save it elsewhere (`datasets.load_dataset(…).save_to_disk(folder)`, or as Parquet or CSV) and "
            f"give that path, "
            f"or set HF_ENDPOINT to a mirror."
        ) from error
    return _table(source, *_one_split(source, found, split or None))


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise NotSupported(
            f"{name} is a Hugging Face dataset; reading it needs the package `datasets`. Run `pip install "
            f"'penjing[hub]'`."
        ) from None
    return datasets


def _one_split(name: str, found: Any, split: str | None) -> tuple[Any, tuple[str, ...]]:
    if not hasattr(found, "keys"):
        return found, ()
    splits = [*found.keys()]
    if split is not None and split not in splits:
        raise DataError(
            f"{name} has no split `{split}`.{nearest(split, splits)} Splits: {', '.join(splits)}."
        )
    if split is None and len(splits) > 1 and "train" not in splits:
        sign = ":" if name.startswith("hf:") else "#"
        raise DataError(
            f"{name} has {len(splits)} splits: {', '.join(splits)}; one was wanted. Choose one, such as "
            f"`{name}{sign}{splits[0]}`."
        )
    chosen = split or ("train" if "train" in splits else splits[0])
    return found[chosen], (
        () if split or len(splits) == 1 else (f"{name}: rows from split `{chosen}` of {', '.join(splits)}",)
    )


def _table(name: str, dataset: Any, notes: tuple[str, ...]) -> Table:
    if len(dataset) == 0:
        raise DataError(f"{name} has no rows. Give another set or split.")
    names = {k: f.names for k, f in dataset.features.items() if hasattr(f, "names")}
    names |= {
        k: f.feature.names
        for k, f in dataset.features.items()
        if hasattr(getattr(f, "feature", None), "names")
    }

    def rows(wanted: Sequence[str]) -> Cells:
        line = 0
        for start in range(0, len(dataset), 10_000):
            part = dataset.select_columns([*wanted])[start : start + 10_000]
            for cells in zip(*(part[column] for column in wanted), strict=True):
                line += 1
                yield line, cells

    return Table(name, tuple(dataset.column_names), rows, (name,), notes, typed=True, names=names)
