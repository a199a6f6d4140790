"""Load a base: preset, local folder or hub name -> trunk, tokenizer and the facts that everything else needs.

Only safetensors are read and no code from a checkpoint is run. Nothing touches the network when the base is local.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.errors import NotSupported
from penjing.files import sha256
from penjing.models import packing
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
    pooler: nn.Linear | None  # the family's trained dense layer over CLS, when it has one and pools so
    limit: int  # longest sequence, tokens


def find(name: str) -> Path:
    """The local folder of a base; fetched from the hub when it is a hub name and the hub can be reached.

    Raises:
        NotSupported: there is no such base, or no way to reach it.
    """
    if name in PRESETS:
        preset = PRESETS[name]
        folder = folder_of(preset)
        found = sha256(folder / "model.safetensors")
        if found != preset.sha256:
            raise NotSupported(
                f"The weights of `{name}` must have SHA-256 {preset.sha256[:16]}…; {folder / 'model.safetensors'} has "
                f"{found[:16]}…. The file is damaged or was changed: reinstall {preset.requirement}."
            )
        return folder
    folder = Path(name).expanduser()
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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not hub_answers()))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError, OSError) as error:
        from penjing.errors import nearest

        raise NotSupported(
            f"The base `{name}` is neither a preset nor a local folder, it is not in the hub's local cache, and the hub gave "
            f"no copy ({type(error).__name__}).{nearest(name, PRESETS)} Offline: copy the checkpoint's folder here and "
            f"give its path, or take a preset: {', '.join(PRESETS)}."
        ) from error


def hub_answers() -> bool:
    """One short try to reach the hub; no retries."""
    import socket
    from urllib.parse import urlparse

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection(
            (address.hostname or "huggingface.co", address.port or 443), HUB_WAIT_S
        ):
            return True
    except OSError:
        return False


def load(
    name: str, *, device: torch.device | str = "cpu", fresh: bool = False, tokenizer_from: Path | None = None
) -> Base:
    """Load a base in fp32 and find out how it runs; `fresh` gives random weights in the checkpoint's shape.

    Raises:
        NotSupported: no such base, a pickle, code in the checkpoint, damaged or incomplete weights.
    """
    folder = find(name)
    _refuse(folder, name)
    with _quiet():
        from transformers import AutoConfig, AutoTokenizer

        config = _tried(
            lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False), folder, "config.json"
        )
        tokenizer = _tried(
            lambda: AutoTokenizer.from_pretrained(tokenizer_from or folder, trust_remote_code=False),
            folder,
            "the tokenizer",
        )
        trunk = _tried(lambda: _trunk(folder, config, fresh), folder, "the weights")
    config = trunk.config
    kind = "decoder" if _causal(trunk) else "encoder"
    pooling = _declared_pooling(folder) or ("last" if kind == "decoder" else "cls")
    pooler = getattr(getattr(trunk, "pooler", None), "dense", None)
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    trunk.to(device)
    packing.register()
    return Base(
        name=name,
        folder=folder,
        sha256=_weights_sha(folder),
        trunk=trunk,
        tokenizer=tokenizer,
        way=packing.how_to_run(trunk),
        kind=kind,
        width=int(config.hidden_size),
        n_layers=int(config.num_hidden_layers),
        pooling=pooling,
        pooler=pooler if pooling == "cls" else None,
        limit=_limit(config, tokenizer),
    )


def _trunk(folder: Path, config: Any, fresh: bool) -> Any:
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING
    from transformers import AutoModel, AutoModelForTextEncoding

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
                f"({len(lost)} missing, {len(wrong)} of another shape). The checkpoint is incomplete or of another model: "
                f"fetch it again."
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
            f"{what} of the base in {folder} could not be read ({type(error).__name__}: {first[:200]}). The checkpoint is "
            f"damaged, incomplete or of a kind that transformers does not know: fetch it again, or update transformers."
        ) from error


def _refuse(folder: Path, name: str) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise NotSupported(
            f"A base was wanted in {folder}; it has no config.json. Give the folder that holds config.json and "
            f"model.safetensors (a run's bundle is opened with `penjing predict`, not as a base)."
        )
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotSupported(
            f"{config} is not readable as JSON ({error}). The checkpoint is damaged: fetch it again."
        ) from error
    from_code = values.get("auto_map")
    if from_code and "model_type" not in values:
        raise NotSupported(
            f"The base `{name}` wants its own Python code to be run ({', '.join(map(str, from_code))}). Code from checkpoints is "
            f"never run; take a base whose architecture transformers has."
        )
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(
            p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl") for p in folder.glob(pattern)
        )
        found = (
            f"only {', '.join(pickles[:3])}, which may be pickles and can run code"
            if pickles
            else "no weights"
        )
        raise NotSupported(
            f"Weights in safetensors were wanted in {folder}; it holds {found}. On a machine you trust with it, convert it: "
            f"`AutoModel.from_pretrained(folder).save_pretrained(new_folder)`."
        )


def _weights_sha(folder: Path) -> str:
    import hashlib

    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(f) for f in files).encode()).hexdigest()


def _causal(trunk: nn.Module) -> bool:
    """True when attention looks only back: asked of the attention modules themselves."""
    asked = [m.is_causal for m in trunk.modules() if isinstance(getattr(m, "is_causal", None), bool)]
    return bool(asked) and all(asked)


def _declared_pooling(folder: Path) -> str | None:
    """What a sentence-transformers folder says of its pooling."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    with contextlib.suppress(json.JSONDecodeError):
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
def _quiet() -> Iterator[None]:
    """transformers' loading bars and reports, off; what matters of them we check ourselves."""
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
