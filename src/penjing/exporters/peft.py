"""An adapter as peft has it, over the base that it was made on."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import NotSupported
from penjing.exporter import Exporter, Sent, refuse_stored
from penjing.exporters.hf import auto_of, save_words
from penjing.exporters.onnx import labels_of
from penjing.files import write_json
from penjing.models import peft_files
from penjing.models.layers import bare
from penjing.models.load import Base, quiet
from penjing.models.padded import Padded, Run, Tables, ports_of
from penjing.models.word_head import WordHead

CONFIG, WEIGHTS, HEAD = "adapter_config.json", "adapter_model.safetensors", "head.safetensors"
TASKS = {"CausalLM": "CAUSAL_LM", "Seq2SeqLM": "SEQ_2_SEQ_LM"}


def peft() -> Exporter:
    """An adapter that `PeftModel.from_pretrained` puts on its base, unmerged; the base itself is not written.

    Of a language model it fits `AutoPeftModelForCausalLM` (or Seq2SeqLM); else the trunk, with the task's
    head in head.safetensors beside it.
    """
    return Exporter("peft", _fits, _write, _opened, _opens, needs=("peft",), merges=False)


def _fits(sent: Sent) -> Sequence[str]:
    if sent.card["saves"] != "peft":
        raise NotSupported(
            f"An adapter was wanted; the bundle in {sent.folder} has none: its method is "
            f"`{sent.card['method']}`. "
            "Export to `hf`, or tune with `method: lora`."
        )
    refuse_stored(sent, "peft")
    ports_of(sent.held.base, sent.held.model.trunk, sent.held.model.head)
    speaks = isinstance(sent.held.model.head, WordHead)
    if speaks and _task_of(sent) is None:
        raise NotSupported(
            f"peft has no place for the words' head of {auto_of(sent)}, which the bundle in {sent.folder} "
            "trained. "
            "Export to `hf`."
        )
    note = f"the adapter fits the base {_base_of(sent)} and no other; the base is not written"
    return (
        (note,)
        if speaks
        else (note, f"the head of `{sent.held.task.name}` is in {HEAD}, its shape in labels.json")
    )


def _opens(sent: Sent) -> str:
    if isinstance(sent.held.model.head, WordHead):
        return f"{auto_of(sent).replace('Auto', 'AutoPeft', 1)}.from_pretrained('{{folder}}')"
    kind = type(bare(sent.held.model.trunk)).__name__
    return f"PeftModel.from_pretrained({kind}.from_pretrained({_base_of(sent)!r}), '{{folder}}')"


def _base_of(sent: Sent) -> str:
    """The base by its name on the hub, or its folder."""
    base: Base = sent.held.base
    return str(base.folder.absolute()) if base.folder.is_dir() else base.name


def _task_of(sent: Sent) -> str | None:
    return TASKS.get(auto_of(sent).removeprefix("AutoModelFor"))


def _write(sent: Sent, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = sent.held
    peft_files.save(held.model.trunk, folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = _base_of(sent)
    head = held.model.head
    if isinstance(head, WordHead):
        tensors = load_file(folder / WEIGHTS)
        prefix = f"base_model.model.{head.own.model.base_model_prefix}."
        tensors = {name.replace("base_model.model.", prefix, 1): own.clone() for name, own in tensors.items()}
        if not any(own is head.out.weight for own in bare(held.model.trunk).parameters()):
            place = head._places[0]  # a projection of its own, which trained with the adapter
            tensors[f"base_model.model.{place}.weight"] = head.out.weight.detach().clone()
            config["modules_to_save"] = [place.rpartition(".")[2]]
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config["task_type"] = _task_of(sent)
    else:
        own_state = {name: own.clone().contiguous() for name, own in head.state_dict().items()}
        save_file(own_state, folder / HEAD, metadata={"format": "pt"})
        about = {"pooling": getattr(head, "pooling", None), "layers": [*own_state]}
        write_json(folder / "labels.json", {**labels_of(sent), "head": about})
    write_json(folder / CONFIG, config)
    save_words(sent, folder)


def _opened(sent: Sent, folder: Path) -> Run:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    held = sent.held
    ports = ports_of(held.base, held.model.trunk, held.model.head)
    model: Any
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft, at transformers
        if isinstance(held.model.head, WordHead):
            import peft as library

            kind = getattr(library, auto_of(sent).replace("Auto", "AutoPeft", 1))
            model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        else:
            trunk = type(bare(held.model.trunk)).from_pretrained(_base_of(sent), dtype=torch.float32)
            head = copy.deepcopy(held.model.head)
            head.load_state_dict(load_file(folder / HEAD))
            model = Padded(PeftModel.from_pretrained(trunk, folder), head, ports).eval()

    def run(tables: Tables) -> list[np.ndarray]:
        given = {name: torch.from_numpy(table) for name, table in tables.items()}
        with torch.no_grad():
            if isinstance(model, Padded):
                return [one.numpy() for one in model(*given.values())]
            return [model(**given).logits.float().numpy()]

    return run
