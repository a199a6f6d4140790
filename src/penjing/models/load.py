"""Load a base: preset, local folder or hub name -> trunk, tokenizer and the facts that everything else needs.

Only safetensors are read and no code from a checkpoint is run. Nothing touches the network when the base is
local.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.errors import NotSupported, SpecError, nearest
from penjing.files import sha256
from penjing.models import compiled, encdec, grow, packing, skeleton
from penjing.models.adapters import twin
from penjing.models.checkpoint import (
    declared_pooling,
    dense_in,
    longest,
    place_of_cls,
    refuse,
    settle,
    settle_pooler,
    taken_pooler,
    tried,
)
from penjing.models.halves import auto_of, encoder_alone, part_of
from penjing.models.layers import is_causal
from penjing.models.packing import Way
from penjing.models.presets import PRESETS, folder_of
from penjing.models.shapes import SHAPES
from penjing.models.sight import Sight, sees, sight_of
from penjing.models.stored import plainly
from penjing.models.unread import refuse_unread

HUB_WAIT_S = 3.0


@dataclass(frozen=True)
class Base:
    """A loaded base. `trunk` maps packed ids, or images where `way.sight` is there, to hidden states (T,
    width) by `packing.run(trunk, way, …)`.
    """

    name: str
    folder: Path
    sha256: str  # of the weight files; of what random weights were made from
    trunk: nn.Module
    tokenizer: Any  # None where it reads images
    way: Way
    kind: str  # encoder, decoder or encoder-decoder
    width: int
    n_layers: int
    pooling: str  # how this family sums up a sequence, one of heads.POOLINGS
    over_cls: nn.Module | None  # the family's own module with a dense layer over CLS, off the trunk
    limit: int  # longest sequence, tokens
    grown: bool = False  # from random weights: a preset to grow, which no file holds
    cut: bool = False  # to fewer layers than its files have

    @property
    def pooler(self) -> nn.Linear | None:
        """The family's dense layer over CLS, where it has one: a head that reads CLS takes it over."""
        return dense_in(self.over_cls)


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
    if name in SHAPES:
        raise NotSupported(
            f"A base with weights was wanted; `{name}` is a preset to grow, and random weights have no "
            f"folder. Pretrain it and give that folder, or take a preset with weights: {', '.join(PRESETS)}."
        )
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return next((f for f in (folder / "best/trunk", folder / "trunk") if f.is_dir()), folder)
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
            f"and {why if reached else 'the hub cannot be reached'}.{nearest(name, [*PRESETS, *SHAPES])} "
            "Offline: copy the checkpoint's folder here and give its path, or take a preset: "
            f"{', '.join(PRESETS)}."
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
    name: str,
    *,
    device: torch.device | str = "cpu",
    fresh: bool = False,
    tokenizer_from: str | Path | None = None,
    shape: Mapping[str, Any] | None = None,
    seed: int = 0,
    whole: bool = False,
) -> Base:
    """Load a base in fp32 and find out how it runs; `fresh` gives random weights in the checkpoint's shape.
    Of an encoder-decoder it is the encoder, or with `whole` both.

    On the device `meta` it has shapes but no weights: enough to count, to check, and to try what a method
    does. A preset to grow gets its words from `tokenizer_from`, other fields of its config from `shape`, and
    random weights from `seed`.

    Raises:
        NotSupported: no such base, a pickle, code in the checkpoint, damaged or incomplete weights.
        SpecError: a preset to grow without a tokenizer, a shape that is none, or one for a base with weights.
    """
    if name in SHAPES:
        return _grown(name, torch.device(device), tokenizer_from, shape, seed, whole)
    if shape:
        raise SpecError(
            f"`shape` changes a preset that is grown from random weights; the base `{name}` has weights, and "
            f"they have its shape. Leave it out, or take a preset: {', '.join(SHAPES)}."
        )
    folder = find(name)
    if not compiled.is_at(folder):
        refuse(folder, name)
    shapes_only = torch.device(device).type == "meta"
    words = Path(tokenizer_from or words_beside(folder))
    with quiet():
        from transformers import AutoConfig

        config = tried(
            lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False), folder, "config.json"
        )
        tokenizer = None if sees(config) else tokenizer_at(words)
        with torch.device("meta") if shapes_only else contextlib.nullcontext():
            trunk = tried(lambda: _trunk(folder, config, fresh or shapes_only, whole), folder, "the weights")
    sha, sight = "" if shapes_only else _weights_sha(folder), None
    if tokenizer is None:
        sight = sight_of(trunk, words)
    else:
        if not compiled.is_at(folder):
            _same_words(tokenizer, trunk, folder)
    made = _ready(name, folder, sha, trunk, tokenizer, device, sight)
    settle_pooler(made.pooler, folder)
    return made


def _grown(
    name: str,
    device: torch.device,
    words: str | Path | None,
    shape: Mapping[str, Any] | None,
    seed: int,
    whole: bool,
) -> Base:
    """A preset to grow, its weights drawn on the CPU: the same from the same seed on every device."""
    folder = grow.words_at(name, words)
    shapes_only = device.type == "meta"
    with quiet():
        tokenizer = None if folder is None else tokenizer_at(folder)
        config = grow.config_of(name, tokenizer=tokenizer, shape=shape)
        sha = "" if shapes_only else grow.identity(config, tokenizer, seed)
        with torch.device("meta") if shapes_only else contextlib.nullcontext():
            trunk = part_of(grow.fresh(config, seed, auto_of(config, whole)), config, whole)
    sight = sight_of(trunk, None) if folder is None else None
    return replace(_ready(name, folder or Path(), sha, trunk, tokenizer, device, sight), grown=True)


def words_beside(folder: Path) -> Path:
    """Where the tokenizer of a base in this folder lies: there, or beside a bundle's weights."""
    beside = folder.parent / "tokenizer"
    return beside if folder.name == "trunk" and beside.is_dir() else folder


def tokenizer_at(folder: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        NotSupported: there is none that transformers can read.
    """
    from transformers import AutoTokenizer

    # said here, or what lies in a bundle would tell whether the machine was offline
    found = tried(
        lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True),
        folder,
        "the tokenizer",
    )
    if len(found) - len(set(found.all_special_ids)) < 2:  # made of config.json alone, it knows no word
        raise NotSupported(
            f"A tokenizer was wanted in {folder}; its files (tokenizer.json, vocab.txt, …) are not there, "
            f"and without them it knows {len(found)} tokens, special ones. Fetch them from where the weights "
            "came from: `AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)`."
        )
    return found


def _ready(
    name: str,
    folder: Path,
    sha: str,
    trunk: Any,
    tokenizer: Any,
    device: torch.device | str,
    sight: Sight | None,
) -> Base:
    """The facts of a trunk, and the way it is run."""
    config = trunk.config
    both = encdec.is_whole(trunk)
    kind = "encoder-decoder" if both else "decoder" if is_causal(trunk) else "encoder"
    usual = "last" if kind == "decoder" else "cls" if sight is not None else place_of_cls(tokenizer)
    settle(trunk)
    trunk.to(device)
    packing.register()
    over_cls = taken_pooler(trunk)
    way = Way(False, 0, "it has no weights")
    if sight is not None:  # image classifiers of transformers stand on the first state itself
        over_cls, way = None, Way(False, 0, "it reads images", sight)
    elif isinstance(trunk, compiled.Compiled):
        way = compiled.way()
    elif torch.device(device).type != "meta":
        with quiet(), plainly(trunk):
            way = (encdec if both else packing).how_to_run(trunk)
    return Base(
        name=name,
        folder=folder,
        sha256=sha,
        trunk=trunk,
        tokenizer=tokenizer,
        way=way,
        kind=kind,
        width=int(config.hidden_size),
        n_layers=int(config.num_hidden_layers),
        pooling=(None if sight else declared_pooling(folder)) or usual,
        over_cls=over_cls,
        limit=sight.n_tokens if sight else longest(config, tokenizer, way.offset),
    )


def copy_of(base: Base) -> Base:
    """A second base with the same weights: training takes a base apart, and a copy is cheaper than a load."""
    return replace(base, trunk=copy.deepcopy(base.trunk), over_cls=copy.deepcopy(base.over_cls))


def twin_of(base: Base) -> Base:
    """The same base for a method that leaves its weights alone: they are shared, only the modules are new."""
    return replace(base, trunk=twin(base.trunk), over_cls=copy.deepcopy(base.over_cls))


def _same_words(tokenizer: Any, trunk: Any, folder: Path) -> None:
    rows = int(trunk.get_input_embeddings().weight.shape[0])
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows:
        raise NotSupported(
            f"The tokenizer of the base in {folder} gives ids up to {highest:,}; its word table has {rows:,} "
            f"rows. They are not of one checkpoint: fetch it again."
        )


def _trunk(folder: Path, config: Any, fresh: bool, whole: bool) -> Any:
    auto = auto_of(config, whole)
    if compiled.is_at(folder):
        return compiled.opened(folder, config)
    if skeleton.is_at(folder):
        shapes = torch.get_default_device().type == "meta"
        return skeleton.opened(
            folder,
            lambda: part_of(auto.from_config(config, dtype=torch.float32), config, whole),
            weights=not (fresh or shapes),
        )
    if fresh:
        return part_of(auto.from_config(config), config, whole)
    alone = encoder_alone(auto, config, whole)
    model, info = (alone or auto).from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # told below, by name
        output_loading_info=True,
    )
    computed = _computed(alone or auto.from_config, config)
    for name in computed:
        model.get_parameter(name).requires_grad_(False)
    lost = sorted(k for k in info["missing_keys"] if not k.startswith("pooler.") and k not in computed)
    wrong = sorted(str(k[0]) for k in info["mismatched_keys"])  # transformers names them in no order
    if lost or wrong:
        raise NotSupported(
            f"{folder} lacks weights that its config.json asks for: {', '.join((lost + wrong)[:3])} "
            f"({len(lost)} missing, {len(wrong)} of another shape). The checkpoint is incomplete or of "
            f"another model: fetch it again."
        )
    refuse_unread(model, info["unexpected_keys"], folder)
    return model if alone else part_of(model, config, whole)


def _computed(make: Any, config: Any) -> set[str]:
    """Names of tables that a family computes and marks as not to be trained; a checkpoint's loading forgets
    the mark. Only encoder-decoders have such (Marian's positions)."""
    if not config.is_encoder_decoder:
        return set()
    with torch.device("meta"):
        shapes = make(config)
    return {name for name, parameter in shapes.named_parameters() if not parameter.requires_grad}


def _weights_sha(folder: Path) -> str:
    import hashlib

    files = [compiled.weights_at(folder)] if compiled.is_at(folder) else sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(f) for f in files).encode()).hexdigest()


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
