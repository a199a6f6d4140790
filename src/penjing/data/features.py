"""What whole numbers in a column stand for, as Hugging Face's files say: `dataset_info.json`,
`dataset_infos.json` or the head of `README.md` beside the rows, and what `datasets` writes into Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.data.columns import listed
from penjing.data.table import Table

Names = dict[str, Sequence[str]]
_INNER = ("feature", "sequence", "list", "dtype")  # under which the type of a list's elements stands


def with_names(table: Table, path: Path) -> Table:
    """The table with names for the whole numbers of its columns, told, from a file beside the rows at `path`
    or one folder up; itself where there is none. A column on which configurations disagree has none."""
    names, home = _beside(path)
    more = {name: own for name, own in names.items() if name in table.columns and name not in table.names}
    if not more:
        return table
    note = f"{table.name}: numbers in {listed([*more])} have their names from {home}"
    return replace(table, names={**table.names, **more}, notes=(*table.notes, note))


def _beside(path: Path) -> tuple[Names, str]:
    for folder in (path.parent, path.absolute().parent.parent):
        for file, read in (
            (folder / "dataset_info.json", _of_json),
            (folder / "dataset_infos.json", _of_json),
            (folder / "README.md", _of_card),
        ):
            found = _agreed(read(file)) if file.is_file() else {}
            if found:
                return found, str(file)
    return {}, ""


def class_names(features: Any) -> Names:
    """Class names by column of features as `datasets` writes them: a mapping, or the list of a card."""
    if isinstance(features, list):
        features = {one.get("name"): one for one in features if isinstance(one, dict)}
    found = {str(column): _names(what) for column, what in features.items()}
    return {column: names for column, names in found.items() if names}


def _names(what: Any) -> Sequence[str]:
    """The names of a class label, or of a list of class labels; empty for all else."""
    if isinstance(what, list) and len(what) == 1:  # how lists of features were once written
        what = what[0]
    if not isinstance(what, Mapping):
        return ()
    if what.get("_type") == "ClassLabel":
        return [str(name) for name in what.get("names") or ()]
    if isinstance(label := what.get("class_label"), Mapping):
        names = label.get("names")
        if isinstance(names, Mapping):
            return [str(names[str(i)]) for i in range(len(names))] if _is_counted(names) else ()
        return [str(name) for name in names or ()]
    return next((names for key in _INNER if (names := _names(what.get(key)))), ())


def _is_counted(names: Mapping[str, Any]) -> bool:
    return {*names} == {str(i) for i in range(len(names))}


def _agreed(each: Iterator[Names]) -> Names:
    found: Names = {}
    odd = set()
    for names in each:
        odd |= {column for column, own in names.items() if found.setdefault(column, own) != own}
    return {column: own for column, own in found.items() if column not in odd}


def _of_json(file: Path) -> Iterator[Names]:
    try:
        about = json.loads(file.read_text("utf-8"))
    except ValueError:
        return
    whole = about if isinstance(about, dict) else {}
    for one in (whole, *whole.values()):  # of one configuration, or of each by its name
        if isinstance(one, dict) and isinstance(one.get("features"), dict | list):
            yield class_names(one["features"])


def _of_card(file: Path) -> Iterator[Names]:
    import yaml

    lines = file.read_text("utf-8", errors="replace").splitlines()
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return
    try:  # BaseLoader: a class may be called `no`
        about = yaml.load("\n".join(lines[1 : lines.index("---", 1)]), Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return
    info = about.get("dataset_info") if isinstance(about, dict) else None
    for one in info if isinstance(info, list) else [info]:
        if isinstance(one, dict) and isinstance(one.get("features"), list):
            yield class_names(one["features"])
