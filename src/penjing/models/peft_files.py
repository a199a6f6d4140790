"""Adapters in peft's files, adapter_config.json and adapter_model.safetensors: peft's own, and virtual tokens
and prefixes, which run here without peft.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.files import write_json
from penjing.models.mutated import has_start, save_over_base
from penjing.models.prefix import Prefix, shape_of
from penjing.models.prompting import Prompt

OURS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")  # peft's kinds that run here without peft
WEIGHTS = "adapter_model.safetensors"


def save(trunk: Any, folder: Path) -> None:
    """Write what the trunk's adapter has learned: the same bytes for the same adapter."""
    if hasattr(trunk, "added"):
        _save_vectors(trunk, folder)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*invalid shape")  # AdaLoRA leaves some layers no rank
        with _zeros_left_out(trunk):
            # Left to itself peft asks the hub whether the base's vocabulary was changed.
            trunk.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    if has_start(trunk):
        save_over_base(trunk, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):  # a set in peft, in another order in each process
        config["target_modules"].sort()
    write_json(path, config)


@contextlib.contextmanager
def _zeros_left_out(trunk: Any) -> Iterator[None]:
    """Inside, what AdaLoRA's files leave out is what is 0: an average of the weights may hold triplets that
    the weights themselves have let go.
    """
    config = trunk.peft_config["default"]
    settled: dict[str, list[bool]] | None = getattr(config, "rank_pattern", None)
    if config.peft_type != "ADALORA" or not settled:
        yield
        return
    own = dict(trunk.base_model.model.named_parameters())
    there = {name: own[name].flatten().bool().tolist() for name in settled}
    config.rank_pattern = {
        name: [a or b for a, b in zip(kept, there[name], strict=True)] for name, kept in settled.items()
    }
    try:
        yield
    finally:
        config.rank_pattern = settled


def _save_vectors(trunk: Any, folder: Path) -> None:
    """What `trunk.added` has learned, as peft would; encoders are not kept, only what they give."""
    from peft import get_peft_config
    from safetensors.torch import save_file

    added: Prompt | Prefix = trunk.added
    with torch.no_grad():
        vectors: Tensor = added.vectors().cpu().contiguous()
    about: dict[str, Any] = {"token_dim": vectors.shape[1], "num_attention_heads": 1}
    if isinstance(added, Prefix):
        about = {"token_dim": vectors.shape[1] // (2 * added.n_layers), "num_attention_heads": added.heads}
    config = get_peft_config(
        {
            "peft_type": added.kind,
            "task_type": "FEATURE_EXTRACTION",
            "base_model_name_or_path": trunk.name_or_path,
            "inference_mode": True,
            "num_virtual_tokens": len(vectors),
            "num_transformer_submodules": 1,
            "num_layers": int(trunk.config.num_hidden_layers),
            **about,
        }
    )
    config.save_pretrained(str(folder))
    save_file({"prompt_embeddings": vectors}, folder / WEIGHTS, metadata={"format": "pt"})


def load(trunk: Any, folder: Path) -> nn.Module | None:
    """Put what such files hold around the trunk; None where they hold another kind of adapter.

    Raises:
        KeyError, ValueError, safetensors.SafetensorError: the files are damaged or for another base.
    """
    from safetensors.torch import load_file

    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config["peft_type"] not in OURS:
        return None
    vectors = load_file(folder / WEIGHTS)["prompt_embeddings"].to(next(trunk.parameters()).device)
    n_layers, heads, width = shape_of(trunk)
    deep = config["peft_type"] == "PREFIX_TUNING"
    wanted = 2 * n_layers * heads * width if deep else trunk.get_input_embeddings().weight.shape[1]
    if vectors.ndim != 2 or vectors.shape[1] != wanted:
        raise ValueError(f"vectors of {wanted} numbers were wanted, they are {tuple(vectors.shape)}")
    trunk.added = Prefix(vectors, n_layers, heads) if deep else Prompt(vectors)
    trunk.added.requires_grad_(False)
    return trunk  # type: ignore[no-any-return]


def lost(trunk: Any, folder: Path) -> str:
    """The name of a tensor of these files that is not, to the bit, in the trunk; empty when all are. peft
    itself passes over names that fit no module, and the base then answers alone."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = get_peft_model_state_dict(trunk, save_embedding_layers=False)
    saved = load_file(folder / WEIGHTS)
    for name, tensor in saved.items():
        here = own.get(name)
        if here is None or here.shape != tensor.shape or not torch.equal(here.cpu(), tensor.to(here.dtype)):
            return name
    return ""
