"""One small registry of models of every kind that shares a base, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serving import made, registered

KINDS = {  # name: task, labels, method; over tiny BERT
    "support": ("classify", 3, "lora"),
    "topics": ({"classify": {"multi_label": True}}, 5, {"lora": {"rank": 4, "targets": "all"}}),
    "names": ({"tag": {"head_dropout": 0.0}}, 2, {"lora": {"rank": 2}}),
    "search": ("embed", 0, {"lora": {"rank": 3}}),
    "pairs": ("pair", 2, {"lora": {"rank": 2}}),
    "whole": ("classify", 4, "full"),
    "biases": ("classify", 3, "bitfit"),
    "prefixed": ("classify", 3, "prefix"),
}

TALKERS = {
    "talk": ("qwen3", {"chat": {"max_new": 16}}, "lora"),
    "notes": ("t5", {"summarize": {"longest": 12}}, "full"),
}


@pytest.fixture(scope="session")
def shelf(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a version of each of KINDS over tiny BERT. Only read it."""
    root, work = tmp_path_factory.mktemp("serving"), tmp_path_factory.mktemp("bundles")
    for seed, (name, (task, labels, method)) in enumerate(KINDS.items()):
        folder = made(work / name, tiny("bert"), task, labels=labels, method=method, seed=seed)
        registered(root, name, folder)
    for name, (family, task, method) in TALKERS.items():
        folder = made(work / name, tiny(family), task, labels=0, method=method, seed=5)
        registered(root, name, folder)
    return root
