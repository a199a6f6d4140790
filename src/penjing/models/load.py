"""Load a base: preset, local folder or hub name -> trunk, tokenizer and the facts that everything else needs.

Only safetensors are read and no code from a checkpoint is run. Nothing touches the network when the base is
local.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.errors import NotSupported, nearest
from penjing.files import sha256
from penjing.models import packing
from penjing.models.adapters import twin
from penjing.models.layers import is_causal
from penjing.models.packing import Way
from penjing.models.presets import PRESETS, folder_of

HUB_WAIT_S = 3.0


@dataclass(frozen=True)
class Base:
    """A loaded base. `trunk` maps packed ids to hidden states (T, width) by `packing.run(trunk, way, …)`."""

    name: str
    folder: Path
    sha256: str  # of the weight files
    trunk: nn.Module
    tokenizer: Any
    way: Way
    kind: str  # encoder or decoder
    width: int
    n_layers: int
    pooling: str  # how this family sums up a sequence: cls, mean or last
    pooler: nn.Linear | None  # the family's trained dense layer over CLS, where it has one
    limit: int  # longest sequence, tokens


def find(name: str) -> Path:
    """The local folder of a base; fetched from the hub when it is a hub name and the hub can be reached.

    Raises:
        NotSupported: there is no such base, or no way to reach it.
    """
    if name in PRESETS:
        preset = PRESETS[name]
        folder = folder_of(preset)
        weights = folder / "model.safetensors"
        found = sha256(weights) if weights.is_file() else "no such file"
        if found != preset.sha256:
            raise NotSupported(
                f"The weights of `{name}` must have SHA-256 {preset.sha256[:16]}…; "
                f"{folder / 'model.safetensors'} has {found[:16]}…. The file is damaged or was changed: "
                f"reinstall {preset.requirement}."
            )
        return folder
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise NotSupported(
            f"A base was wanted in the folder {folder}; there is none. Give a folder with config.json and "
            f"model.safetensors, or a preset: {', '.join(PRESETS)}."
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    reached = hub_answers()
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not reached))
    except Exception as error:  # the hub's own kinds, httpx's, the system's
        said = str(error).strip().splitlines()[0][:160] if reached and str(error).strip() else ""
        why = f"the hub gave no copy ({type(error).__name__}{': ' if said else ''}{said})"
        raise NotSupported(
            f"The base `{name}` is neither a preset nor a local folder, it is not in the hub's local cache, "
            f"and {why if reached else 'the hub cannot be reached'}.{nearest(name, PRESETS)} Offline: copy "
            f"the checkpoint's folder here and give its path, or take a preset: {', '.join(PRESETS)}."
        ) from error


def hub_answers() -> bool:
    """One short try to reach the hub, or the proxy on the way to it; no retries."""
    import socket
    from urllib.parse import urlparse
    from urllib.request import getproxies

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    hub = urlparse(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxies = getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all")
    address = urlparse(proxy if "//" in proxy else f"//{proxy}") if proxy else hub
    port = address.port or (8080 if proxy else 80 if hub.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "huggingface.co", port), HUB_WAIT_S):
            return True
    except OSError:
        return False


def load(
    name: str, *, device: torch.device | str = "cpu", fresh: bool = False, tokenizer_from: Path | None = None
) -> Base:
    """Load a base in fp32 and find out how it runs; `fresh` gives random weights in the checkpoint's shape.

    On the device `meta` it has shapes but no weights: enough to count, to check, and to try what a method
    does.

    Raises:
        NotSupported: no such base, a pickle, code in the checkpoint, damaged or incomplete weights.
    """
    folder = find(name)
    refuse(folder, name)
    shapes_only = torch.device(device).type == "meta"
    with quiet():
        from transformers import AutoConfig, AutoTokenizer

        config = _tried(
            lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False), folder, "config.json"
        )
        tokenizer = _tried(
            # said here, or what lies in a bundle would tell whether the machine was offline
            lambda: AutoTokenizer.from_pretrained(
                tokenizer_from or folder, trust_remote_code=False, local_files_only=True
            ),
            tokenizer_from or folder,
            "the tokenizer",
        )
        with torch.device("meta") if shapes_only else contextlib.nullcontext():
            trunk = _tried(lambda: _trunk(folder, config, fresh or shapes_only), folder, "the weights")
    config = trunk.config
    _same_words(tokenizer, trunk, folder)
    kind = "decoder" if is_causal(trunk) else "encoder"
    usual = "last" if kind == "decoder" else "cls" if tokenizer.cls_token_id is not None else "mean"
    trunk.to(device)
    packing.register()
    pooler = _taken_pooler(trunk)
    way = Way(False, 0, "it has no weights")
    if not shapes_only:
        with quiet():
            way = packing.how_to_run(trunk)
    return Base(
        name=name,
        folder=folder,
        sha256="" if shapes_only else _weights_sha(folder),
        trunk=trunk,
        tokenizer=tokenizer,
        way=way,
        kind=kind,
        width=int(config.hidden_size),
        n_layers=int(config.num_hidden_layers),
        pooling=_declared_pooling(folder) or usual,
        pooler=pooler,
        limit=_limit(config, tokenizer),
    )


def copy_of(base: Base) -> Base:
    """A second base with the same weights: training takes a base apart, and a copy is cheaper than a load."""
    return replace(base, trunk=copy.deepcopy(base.trunk), pooler=copy.deepcopy(base.pooler))


def twin_of(base: Base) -> Base:
    """The same base for a method that leaves its weights alone: they are shared, only the modules are new."""
    return replace(base, trunk=twin(base.trunk), pooler=copy.deepcopy(base.pooler))


def _same_words(tokenizer: Any, trunk: Any, folder: Path) -> None:
    rows = int(trunk.get_input_embeddings().weight.shape[0])
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows:
        raise NotSupported(
            f"The tokenizer of the base in {folder} gives ids up to {highest:,}; its word table has {rows:,} "
            f"rows. They are not of one checkpoint: fetch it again."
        )


def _trunk(folder: Path, config: Any, fresh: bool) -> Any:
    from transformers import (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        MODEL_FOR_TEXT_ENCODING_MAPPING,
        AutoModel,
        AutoModelForTextEncoding,
    )

    kind = type(config)
    half = kind in MODEL_FOR_TEXT_ENCODING_MAPPING and kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    auto = AutoModelForTextEncoding if half else AutoModel
    if fresh:
        model = auto.from_config(config)
    else:
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        lost = [k for k in info["missing_keys"] if not k.startswith("pooler.")]
        wrong = [str(k[0]) for k in info["mismatched_keys"]]
        if lost or wrong:
            raise NotSupported(
                f"{folder} lacks weights that its config.json asks for: {', '.join((lost + wrong)[:3])} "
                f"({len(lost)} missing, {len(wrong)} of another shape). The checkpoint is incomplete or of "
                f"another model: fetch it again."
            )
    if config.is_encoder_decoder and not half:
        model = model.get_encoder()
    return model


def _tried(make: Any, folder: Path, what: str) -> Any:
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
        parts = _tried(
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


def _weights_sha(folder: Path) -> str:
    import hashlib

    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(f) for f in files).encode()).hexdigest()


def _taken_pooler(trunk: Any) -> nn.Linear | None:
    """Take the family's dense layer over CLS off the trunk; the task's head holds it."""
    pooler = getattr(trunk, "pooler", None)
    if pooler is not None:
        trunk.pooler = None
    dense = getattr(pooler, "dense", pooler)
    return dense if isinstance(dense, nn.Linear) else None


def _declared_pooling(folder: Path) -> str | None:
    """What a sentence-transformers folder says of its pooling."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    with contextlib.suppress(ValueError, AttributeError):
        says = json.loads(path.read_text(encoding="utf-8"))
        for key, pooling in (("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")):
            if says.get(f"pooling_mode_{key}"):
                return pooling
    return None


def _limit(config: Any, tokenizer: Any) -> int:
    """Longest sequence: positions the base has (less RoBERTa's two offsets), and what its tokenizer says."""
    positions = (
        getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 10**9
    )
    pad = getattr(config, "pad_token_id", None)
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet") and isinstance(
        pad, int
    ):
        positions -= pad + 1
    said = tokenizer.model_max_length
    return int(min(positions, said if isinstance(said, int) and said < 10**9 else 10**9))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Bars and reports of transformers' loading and saving, off; what matters of them we check ourselves."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
