"""A checkpoint's folder: what is refused before it is loaded, what it says of itself, and what transformers
throws, made plain."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.errors import NotSupported

START = 1  # seed of a dense layer that begins from random weights


def refuse(folder: Path, name: str) -> None:
    """Look at a checkpoint's files without loading them.

    Raises:
        NotSupported: no checkpoint, pickles, code of its own, weights that are cut off or not all there.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise NotSupported(
            f"A base was wanted in {folder}; it has no config.json. Give the folder that holds config.json "
            f"and model.safetensors (a run's bundle is opened with `penjing predict`, not as a base)."
        )
    try:
        values: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        code, family = values.get("auto_map"), values.get("model_type")
    except (ValueError, AttributeError) as error:
        raise NotSupported(
            f"{config} is not readable as JSON ({error}). The checkpoint is damaged: fetch it again."
        ) from error
    if code and not _is_known(family):
        raise NotSupported(
            f"The base `{name}` wants its own Python code to be run ({', '.join(map(str, code))} in "
            f"{config}). Code from checkpoints is never run; take a base whose architecture transformers has."
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        kinds = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
        pickles = sorted(path.name for kind in kinds for path in folder.glob(kind))
        found = (
            f"only {', '.join(pickles[:3])}, which may be pickles and can run code"
            if pickles
            else "no weights"
        )
        raise NotSupported(
            f"Weights in safetensors were wanted in {folder}; it holds {found}. On a machine you trust with "
            f"it, convert it: `AutoModel.from_pretrained(folder).save_pretrained(new_folder)`."
        )
    for path in files:
        _refuse_damaged(path)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = tried(
            lambda: set(json.loads(index.read_text("utf-8"))["weight_map"].values()), folder, index.name
        )
        lost = sorted(parts - {path.name for path in files})
        if lost:
            raise NotSupported(
                f"{index} names {len(parts)} files of weights; {', '.join(lost[:3])} is missing. Fetch the "
                "checkpoint again."
            )


def _is_known(family: Any) -> bool:
    from transformers import CONFIG_MAPPING

    return family in CONFIG_MAPPING


def _refuse_damaged(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise NotSupported(
            f"{path} could not be read as safetensors ({error}). It is cut off or damaged: fetch the "
            "checkpoint again."
        ) from error


def taken_pooler(trunk: Any) -> nn.Module | None:
    """Take the family's dense layer over CLS off the trunk, with what holds it: the task's head calls it."""
    pooler = getattr(trunk, "pooler", None)
    if pooler is not None:
        trunk.pooler = None
    return None if dense_in(pooler) is None else pooler


def dense_in(pooler: nn.Module | None) -> nn.Linear | None:
    """The one dense layer of a family's pooler (ALBERT's is that layer); None where it is another thing."""
    dense = getattr(pooler, "dense", pooler)
    return dense if isinstance(dense, nn.Linear) else None


@contextlib.contextmanager
def with_pooler(trunk: Any, pooler: nn.Module | None) -> Iterator[None]:
    """Inside, the trunk has its pooler again, to be written with it: whoever takes the files as a base goes
    on with that layer as it is."""
    if pooler is not None:
        trunk.pooler = pooler
    try:
        yield
    finally:
        if pooler is not None:
            trunk.pooler = None


def settle_pooler(dense: nn.Linear | None, folder: Path) -> None:
    """A dense layer over CLS that a checkpoint's files do not hold begins alike each time: many masked
    language models leave it out (RoBERTa), and transformers then draws it from whatever came before.
    """
    from safetensors import safe_open

    if dense is None:
        return
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if any("pooler" in name.split(".") for name in file.keys()):  # noqa: SIM118
                return
    with torch.no_grad():
        dense.weight.copy_(torch.randn(dense.weight.shape, generator=torch.Generator().manual_seed(START)))
        dense.weight.mul_(0.02)
        dense.bias.zero_()


def tried(make: Callable[[], Any], folder: Path, what: str) -> Any:
    """Run a loader of transformers; turn what it throws at a bad checkpoint into one clear line."""
    try:
        return make()
    except NotSupported:
        raise
    except Exception as error:  # transformers and safetensors raise a dozen kinds here
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotSupported(
            f"{what} of the base in {folder} could not be read ({type(error).__name__}: {first[:200]}). The "
            f"checkpoint is damaged, incomplete or of a kind that transformers does not know: fetch it "
            "again, or update transformers."
        ) from error


def settle(trunk: nn.Module) -> None:
    """Tables that a family computes (Marian's positions) become buffers: no method trains them, as no
    checkpoint holds them."""
    for module in trunk.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                del module._parameters[name]
                module.register_buffer(name, parameter.detach())


POOLING = {  # of sentence-transformers, each with the end of its flag: pooling_mode_…
    "mean": ("mean", "mean_tokens"),
    "cls": ("cls", "cls_token"),
    "last": ("lasttoken", "lasttoken"),
    "max": ("max", "max_tokens"),
    "mean_sqrt_len_tokens": ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    "weightedmean": ("weightedmean", "weightedmean_tokens"),
}


def declared_pooling(folder: Path) -> str | None:
    """What a sentence-transformers folder, or a bundle around its trunk, says of its pooling.

    Raises:
        NotSupported: it wants several at once, or one that is not known here.
    """
    card, path = folder.parent / "card.json", folder / "1_Pooling" / "config.json"
    if folder.name == "trunk" and card.is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(card.read_text(encoding="utf-8"))["base"]["pooling"])
    if not path.is_file():
        return None
    says = tried(lambda: dict(json.loads(path.read_text(encoding="utf-8"))), folder, "1_Pooling/config.json")
    # one name, or a list, since release 6, a flag for each before; where neither says anything, the mean
    flags = [name for name, flag in POOLING.values() if says.get(f"pooling_mode_{flag}")]
    named = says.get("pooling_mode") or flags or "mean"
    asked = named if isinstance(named, list) else [named]
    found = [pooling for pooling, (name, _) in POOLING.items() if asked == [name]]
    if not found:
        known = ", ".join(name for name, _ in POOLING.values())
        raise NotSupported(
            f"One way to sum up a text was wanted ({known}); {path} says {' with '.join(map(str, asked))}. "
            "Take another base, or name one of them there in a copy of the folder."
        )
    return found[0]


def place_of_cls(tokenizer: Any) -> str:
    """The pooling that reads the token which stands for a whole text: the first, or XLNet's last; `mean`
    where the tokenizer puts none.
    """
    cls, ids = tokenizer.cls_token_id, tokenizer("a")["input_ids"]
    if cls is None or cls not in (*ids[:1], *ids[-1:]):
        return "mean"
    return "cls" if ids[0] == cls else "last"


def beyond_pooling(folder: Path) -> list[str]:
    """What a sentence-transformers folder has between pooled states and vectors, such as `Dense`: no part
    of the base.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    listed = tried(lambda: list(json.loads(path.read_text(encoding="utf-8"))), folder, "modules.json")
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in listed if isinstance(one, dict)]
    return [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]


def longest(config: Any, tokenizer: Any, offset: int = 0) -> int:
    """Longest sequence: positions the base has, less those before the first (`offset`, as was found by trying
    it; RoBERTa's two), and what its tokenizer says.
    """
    positions = (
        getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 10**9
    )
    positions = positions if positions > 0 else 10**9  # XLNet says -1
    pad = getattr(config, "pad_token_id", None)
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet") and isinstance(
        pad, int
    ):
        offset = pad + 1
    positions -= offset
    said = tokenizer.model_max_length
    return int(min(positions, said if isinstance(said, int) and said < 10**9 else 10**9))
