"""A folder of sentence-transformers: trunk, pooling, and the head as its modules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from penjing.errors import NotSupported
from penjing.exporter import Exporter, Sent, refuse_shapes, wanted
from penjing.exporters.hf import save_words
from penjing.models.checkpoint import POOLING
from penjing.models.embedding import whole_state
from penjing.models.heads import ClassHead
from penjing.models.layers import bare
from penjing.models.load import quiet
from penjing.models.padded import Run, Tables, ports_of
from penjing.models.towers import Nearness, Vectors


def sentence_transformers() -> Exporter:
    """A folder that `SentenceTransformer(folder)` opens.

    Of `embed`, and of `pair` that reads texts apart, `encode` gives the vectors; of a classifier or a
    regressor, whose head becomes Dense modules, the scores of its labels, whatever its pooling.
    """
    return Exporter(
        "sentence_transformers",
        _fits,
        write,
        _opened,
        lambda sent: "SentenceTransformer('{folder}')",
        needs=("sentence-transformers",),
    )


def _fits(sent: Sent) -> Sequence[str]:
    wanted("sentence_transformers", "bench", "A folder of sentence-transformers, checked by itself,")
    refuse_shapes(sent, "sentence-transformers")
    head = sent.held.model.head
    if not isinstance(head, Vectors | Nearness | ClassHead) or sent.held.base.way.sight is not None:
        raise NotSupported(
            f"One vector a text was wanted; the head {type(head).__name__} of the bundle in {sent.folder} "
            "gives "
            "something else. Export to `hf`, `onnx` or `torch`."
        )
    ports_of(sent.held.base, sent.held.model.trunk, head)
    return ()


def write(sent: Sent, folder: Path) -> None:
    """Fill a folder; the head is one of vectors, or a ClassHead."""
    held = sent.held
    head: Any = held.model.head
    with quiet():
        bare(held.model.trunk).save_pretrained(folder, state_dict=whole_state(held.model.trunk))
        save_words(sent, folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _pooling(folder / "1_Pooling", head.pooling, held.base.width)
    if isinstance(head, ClassHead):
        for linear, name in ((head.dense, "Tanh"), (head.out, "Identity")):
            if linear is not None:
                place = f"{len(modules)}_Dense"
                _dense(folder / place, linear, name)
                modules.append(("Dense", place))
    else:
        modules.append(("Normalize", "2_Normalize"))
        (folder / "2_Normalize").mkdir()
    _json(folder / "modules.json", [_module(i, *one) for i, one in enumerate(modules)])
    limits = {"max_seq_length": held.max_length, "do_lower_case": False}
    _json(folder / "sentence_bert_config.json", limits)
    _json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    if isinstance(head, ClassHead):
        _json(folder / "labels.json", list(held.labels))


def _module(i: int, name: str, path: str) -> dict[str, Any]:
    return {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}


def _pooling(folder: Path, how: str, width: int) -> None:
    folder.mkdir()
    modes = {f"pooling_mode_{key}": how == name for name, (_, key) in POOLING.items()}
    _json(folder / "config.json", {"word_embedding_dimension": width, **modes, "include_prompt": True})


def _dense(folder: Path, linear: nn.Linear, activation: str) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    module = f"torch.nn.modules.{'linear' if activation == 'Identity' else 'activation'}.{activation}"
    about = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": True,
        "activation_function": module,
    }
    _json(folder / "config.json", about)
    tensors = {f"linear.{name}": tensor.detach().contiguous() for name, tensor in linear.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _opened(sent: Sent, folder: Path) -> Run:
    import torch

    library = wanted(
        "sentence_transformers", "bench", "A folder of sentence-transformers, checked by itself,"
    )
    with quiet():
        model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True).eval()

    def run(tables: Tables) -> list[np.ndarray]:
        with torch.inference_mode():
            out = model({name: torch.from_numpy(table) for name, table in tables.items()})
        return [out["sentence_embedding"].float().numpy()]

    return run
