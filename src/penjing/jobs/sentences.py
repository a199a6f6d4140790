"""A bundle that embeds texts, written as sentence-transformers reads it, with equal vectors there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from penjing.bundle import Bundle, load
from penjing.device import Machine, choose
from penjing.errors import NotSupported
from penjing.files import new_folder
from penjing.models.layers import bare
from penjing.models.load import quiet
from penjing.models.model import Model
from penjing.models.wrap import merged

MODULES = ("Transformer", "Pooling", "Normalize")
POOLING = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}


def sentences(
    run: str | Path | Bundle, folder: str | Path, *, base: str | None = None, trust: Sequence[str] = ()
) -> Path:
    """Write a bundle's trunk (adapters added into its weights), tokenizer and pooling as a folder that
    `SentenceTransformer(folder)` opens.

    Raises:
        NotSupported: the bundle makes no vectors, or what its method learned is no change of the base's
            weights.
        CannotWrite: no room or no right.
    """
    bundle = run if isinstance(run, Bundle) else load(run, base=base, machine=_plain(), trust=trust)
    model: Any = bundle.model if isinstance(bundle.model, Model) else None
    head: Any = getattr(model, "head", None)
    if not hasattr(head, "embed") or bundle.card["saves"] == "added":
        raise NotSupported(
            f"A model of sentences was wanted; {bundle!r} makes no vectors, or by parts that "
            f"sentence-transformers does not know. Tune with `task: embed` by `full`, `lora` or `top`."
        )
    with torch.no_grad():
        trunk: Any = merged(model.trunk) if bundle.card["saves"] == "peft" else model.trunk
    place = Path(folder)
    with new_folder(place) as aside, quiet():
        bare(trunk).save_pretrained(aside)
        bundle.tokenizer.save_pretrained(aside)
        _write(aside / "modules.json", [_module(i, name) for i, name in enumerate(MODULES)])
        _write(
            aside / "sentence_bert_config.json",
            {"max_seq_length": bundle.card["max_length"], "do_lower_case": False},
        )
        _write(aside / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
        pooling = {f"pooling_mode_{key}": how == head.pooling for how, key in POOLING.items()}
        about = {"word_embedding_dimension": bundle.base.width, **pooling, "include_prompt": True}
        (aside / "1_Pooling").mkdir()
        _write(aside / "1_Pooling" / "config.json", about)
        (aside / "2_Normalize").mkdir()
    return place


def _plain() -> Machine:
    return choose("cpu", "fp32")


def _module(i: int, name: str) -> dict[str, Any]:
    path = "" if i == 0 else f"{i}_{name}"
    return {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
