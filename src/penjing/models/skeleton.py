"""A trunk that its config.json alone does not describe, as files: config.json, stored.json and safetensors.

transformers makes a skeleton of the config; stored.json says what stands there instead (`models.stored`); the
tensors are loaded into that, and every one of them must land. The weights' file has a name of its own, so
that no other library takes it for a checkpoint it knows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.models.embedding import whole_state
from penjing.models.layers import bare
from penjing.models.stored import described, put_empty

PLACES, WEIGHTS = "stored.json", "stored.safetensors"
FORMAT = 1


def differs(trunk: nn.Module) -> dict[str, dict[str, Any]]:
    """What of a trunk its config does not say (see `stored.described`)."""
    model = bare(trunk)
    with torch.device("meta"):
        return described(model, type(model)(model.config))


def save(trunk: nn.Module, folder: Path, places: dict[str, dict[str, Any]]) -> None:
    """Write a trunk and what its config does not say into `folder`. A tensor of two names is written once."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    bare(trunk).config.save_pretrained(folder)
    write_json(folder / PLACES, {"format": FORMAT, "places": places})
    once: dict[Any, str] = {}
    state = whole_state(bare(trunk))
    for name, tensor in state.items():
        once.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name, name)
    save_file({name: state[name].contiguous() for name in once.values()}, folder / WEIGHTS, {"format": "pt"})


def counted(places: dict[str, dict[str, Any]]) -> dict[str, int]:
    """How many layers of each kind there are."""
    return dict(Counter(about["kind"] for about in places.values() if "kind" in about))


def is_at(folder: Path) -> bool:
    """Whether a folder holds such a trunk."""
    return (folder / PLACES).is_file()


def opened(folder: Path, make: Callable[[], Any], *, weights: bool = True) -> Any:
    """The trunk that lies in a folder. `make` gives the config's skeleton.

    Raises:
        NotSupported: a damaged or incomplete file, or a kind that this release does not know.
    """
    try:
        read = json.loads((folder / PLACES).read_text(encoding="utf-8"))
        version, places = read["format"], dict(read["places"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotSupported(
            f"{folder / PLACES} was to say which layers stand where; it cannot be read ({error}). The bundle "
            "is damaged: copy it again or compress anew."
        ) from error
    if version != FORMAT:
        raise NotSupported(
            f"{folder / PLACES} has format {version}; this penjing reads {FORMAT}. Update penjing, or "
            "compress anew."
        )
    trunk: nn.Module = make()
    put_empty(trunk, places)
    return _filled(trunk, folder / WEIGHTS) if weights else trunk


def _filled(trunk: nn.Module, path: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    said = ""
    try:
        found = trunk.load_state_dict(load_file(path), strict=False)
    except (SafetensorError, OSError) as error:
        said = f"it cannot be read ({error})"
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
    else:
        state = trunk.state_dict(keep_vars=True)
        landed = {id(t) for name, t in state.items() if name not in found.missing_keys}
        pooler = [k for k in found.missing_keys if k.startswith("pooler.")]  # lies with the head
        lost = [k for k in found.missing_keys if id(state[k]) not in landed and k not in pooler]
        if lost or found.unexpected_keys:
            names = ", ".join([*lost, *found.unexpected_keys][:3])
            said = f"{len(lost)} are missing and {len(found.unexpected_keys)} have no place: {names}"
    if said:
        raise NotSupported(
            f"The tensors that config.json and {PLACES} ask for were wanted in {path}; {said[:240]}. The "
            "bundle is damaged or mixed of two: copy it again or compress anew."
        )
    return trunk
