"""The key `tasks` of a spec: several tasks at once, each with its rows, as a person would write them.

    tasks:
      intent: {task: classify, train: tickets.csv, label: intent}
      slots: {task: tag, train: slots.conll, test: slots-test.conll}

is `task: {multitask: {of: …}}` with `data.train: {intent: …, slots: …}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penjing.errors import SpecError, nearest

FILES = ("train", "valid", "test")
OF_TASK = ("task", "text", "label", "weight")


def spread(given: Mapping[str, Any]) -> dict[str, Any]:
    """The spec's plain values with `tasks` as `task` and `data`.

    Raises:
        SpecError: tasks are not a list or mapping of tasks, a key of one is unknown, or files of the same
            split are named in two places.
    """
    values = dict(given)
    asked = values.pop("tasks")
    settings = _settings(values.get("task"))
    data = dict(values.get("data") or {})
    of: dict[str, Any] = {}
    for name, entry in _named(asked):
        if name in of:
            raise SpecError(f"`tasks` names `{name}` twice. Give one of them another `name`.")
        strange = next((key for key in entry if key not in (*FILES, *OF_TASK)), None)
        if strange is not None:
            raise SpecError(
                f"`tasks.{name}.{strange}` is not a key of a task."
                f"{nearest(strange, (*FILES, *OF_TASK))} Keys: {', '.join((*OF_TASK, *FILES))}; what all "
                f"tasks share stands outside of `tasks`."
            )
        of[name] = {key: entry[key] for key in OF_TASK if entry.get(key) is not None}
        for key in FILES:
            if entry.get(key) is not None:
                _put(data, key, name, entry[key])
    return {**values, "task": {"multitask": {**settings, "of": of}}, "data": data}


def _settings(task: Any) -> dict[str, Any]:
    """Settings of `multitask` that stand beside `tasks`; any other task there contradicts it."""
    if task is None or task == "multitask":
        return {}
    own = task.get("multitask") if isinstance(task, Mapping) else None
    if not isinstance(own, Mapping) or "of" in own:
        raise SpecError(
            f"`task` ({task!r}) and `tasks` are both given. Keep one; all tasks stand in `tasks`."
        )
    return dict(own)


def _named(asked: Any) -> list[tuple[str, dict[str, Any]]]:
    """Each task's name and what is said of it. In a list, a task's own name is its name where none is
    given."""
    if isinstance(asked, Mapping):
        return [(str(name), _entry(str(name), entry)) for name, entry in asked.items()]
    if not isinstance(asked, list | tuple):
        raise SpecError(f"`tasks` must be a mapping of names to tasks, or a list of tasks; it is {asked!r}.")
    named = []
    for number, one in enumerate(asked, 1):
        entry = _entry(str(number), one)
        task = entry["task"]
        own = task if isinstance(task, str) else next(iter(task), "") if isinstance(task, Mapping) else ""
        named.append((str(entry.pop("name", own)), entry))
    return named


def _entry(name: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"task": entry}
    if not isinstance(entry, Mapping) or not entry:
        raise SpecError(
            f"`tasks.{name}` must be a task, such as {{task: classify, train: a.csv}}; it is {entry!r}."
        )
    if "task" in entry:
        return dict(entry)
    if len(entry) == 1:
        return {"task": dict(entry)}
    raise SpecError(f"`tasks.{name}` lacks the key `task`. Say {{task: classify, train: a.csv}}.")


def _put(data: dict[str, Any], key: str, name: str, source: Any) -> None:
    before = data.setdefault(key, {})
    if not isinstance(before, dict) or name in before:
        raise SpecError(
            f"`data.{key}` ({before!r}) and `tasks.{name}.{key}` both name files. Keep one: `data.{key}` is "
            "for rows that all tasks read."
        )
    data[key] = {
        **before,
        name: [str(one) for one in source] if isinstance(source, list | tuple) else str(source),
    }
