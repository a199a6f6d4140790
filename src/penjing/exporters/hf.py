"""One of transformers' own classes with the trained head in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.exporter import Exporter, Sent, refuse_shapes
from penjing.models.embedding import whole_state
from penjing.models.heads import ClassHead, TagHead
from penjing.models.layers import bare
from penjing.models.load import quiet
from penjing.models.padded import Run, Tables, ports_of
from penjing.models.word_head import WordHead

OF_TASK = {
    "see": "AutoModelForImageClassification",
    "choose": "AutoModelForMultipleChoice",
    "answer": "AutoModelForQuestionAnswering",
    "tag": "AutoModelForTokenClassification",
}
WORDS = ("ForMaskedLM", "ForCausalLM", "ForConditionalGeneration")


def hf() -> Exporter:
    """A checkpoint that `AutoModelFor….from_pretrained` opens: config, safetensors, tokenizer.

    Heads of one text's classes, numbers or tags, answers in a text, choices, images, and language models,
    where the family's class has the same layers as the head.
    """
    return Exporter(
        "hf", _fits, _write, _opened, lambda sent: f"{auto_of(sent)}.from_pretrained('{{folder}}')"
    )


def auto_of(sent: Sent) -> str:
    """The Auto class that holds a model.

    Raises:
        NotSupported: none has such a head.
    """
    head, task = sent.held.model.head, sent.held.task.name
    if isinstance(head, WordHead):
        name = type(head.own.model).__name__
        kinds = {"ForMaskedLM": "MaskedLM", "LMHeadModel": "CausalLM", "ForCausalLM": "CausalLM"}
        return f"AutoModelFor{next((kinds[end] for end in kinds if name.endswith(end)), 'Seq2SeqLM')}"
    if isinstance(head, TagHead):
        why = "transitions of a CRF" if head.moves is not None else "a label of the whole beside its tags"
        spans = sent.held.task.name == "tag" and sent.card["task"].get("tag", {}).get("decode") == "span"
        if head.moves is not None or head.whole is not None or spans:
            _refuse(sent, "begins and ends of spans" if spans else why)
        return OF_TASK[task]
    if isinstance(head, ClassHead):
        return OF_TASK.get(task, "AutoModelForSequenceClassification")
    _refuse(sent, f"a head {type(head).__name__}")
    raise AssertionError


def _refuse(sent: Sent, what: str) -> None:
    better = "`sentence-transformers`" if hasattr(sent.held.model.head, "embed") else "`onnx` or `edge`"
    raise NotSupported(
        f"A class of transformers was wanted for the bundle in {sent.folder}; `{sent.held.task.name}` has "
        f"{what}, "
        f"which none holds. Export to {better}."
    )


def _fits(sent: Sent) -> Sequence[str]:
    refuse_shapes(sent, "hf")
    auto_of(sent)
    ports_of(sent.held.base, sent.held.model.trunk, sent.held.model.head)
    if not isinstance(sent.held.model.head, WordHead):
        state_of(sent)
    return ()


def state_of(sent: Sent) -> tuple[Any, dict[str, Tensor]]:
    """The config and the tensors of the class, by its names.

    Raises:
        NotSupported: the class has other layers than trunk and head together.
    """
    import transformers

    config = config_of(sent)
    auto = getattr(transformers, auto_of(sent))
    trunk = bare(sent.held.model.trunk)
    try:
        with quiet(), torch.device("meta"):
            model = auto.from_config(config)
    except (ValueError, KeyError) as error:
        raise NotSupported(
            f"{auto_of(sent)} was wanted for the bundle in {sent.folder}; transformers has none for "
            f"{type(trunk).__name__}. Export to `onnx`, `openvino` or `torch`."
        ) from error
    prefix = f"{model.base_model_prefix}."
    state = {prefix + name: tensor for name, tensor in whole_state(trunk).items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in state}
    head = sent.held.model.head
    own = dict(head.named_parameters())
    if isinstance(head, ClassHead) and not any(
        name.endswith("bias") and len(s) == 1 for name, s in wanted.items()
    ):
        own = _folded(sent, state, own)
    for name, place in _paired(
        {n: tuple(t.shape) for n, t in own.items()}, wanted, type(model).__name__, sent
    ):
        state[place] = own[name].detach()
    config.architectures = [type(model).__name__]
    return config, {name: tensor.contiguous() for name, tensor in state.items() if name in model.state_dict()}


def _paired(
    own: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], kind: str, sent: Sent
) -> list[tuple[str, str]]:
    """Which of the head's tensors is which of the class's: `out` is its last linear layer, `dense` the one
    before.

    Whether the class does the same with them is found out by running it.
    """
    pairs, left = [], dict(wanted)
    for name, shape in sorted(own.items(), reverse=True):  # out first, then dense
        fitting = [
            place for place, one in left.items() if one == shape and place.endswith(name.rpartition(".")[2])
        ]
        last = [place for place in fitting if ".dense." not in place and "pooler" not in place]
        place = next(iter((last or fitting) if name.startswith("out") else fitting), None)
        if place is None:
            break
        pairs.append((name, place))
        del left[place]
    if left or len(pairs) < len(own):
        head = sent.held.model.head
        has = f"pooling `{getattr(head, 'pooling', 'none')}` and layers {', '.join(sorted(own))}"
        raise NotSupported(
            f"{kind} was to hold the head of the bundle in {sent.folder}, which has {has}; the class has "
            f"{', '.join(sorted(wanted))}. Export to `sentence-transformers` (trunk, pooling and head as its "
            "modules) or `onnx`; or tune with the family's own pooling."
        )
    return pairs


def _folded(sent: Sent, state: dict[str, Tensor], own: dict[str, Any]) -> dict[str, Any]:
    """A class without a bias for its labels: what adds the same to every label's score is added to the bias
    of the trunk's last norm instead, W (h + d) = W h + b with W d = b.

    Raises:
        NotSupported: that norm has no bias.
    """
    trunk = bare(sent.held.model.trunk)
    norms = [
        n for n, m in trunk.named_modules() if isinstance(m, nn.LayerNorm) and not any(map(str.isdigit, n))
    ]
    if not norms:
        raise NotSupported(
            f"The class of transformers for {type(trunk).__name__} has no bias for its labels, and the head "
            "of the "
            f"bundle in {sent.folder} has one. Export to `onnx`, `openvino`, `torch` or "
            "`sentence-transformers`."
        )
    weight, bias = own["out.weight"].double(), own["out.bias"].double()
    key = next(name for name in state if name.endswith(f"{norms[-1]}.bias"))
    state[key] = (state[key].double() + torch.linalg.pinv(weight) @ bias).to(state[key])
    return {"out.weight": own["out.weight"]}


def config_of(sent: Sent) -> Any:
    """The trunk's config with the labels, and what the task calls its outputs."""
    held = sent.held
    config = copy.deepcopy(bare(held.model.trunk).config)
    head = held.model.head
    n_outputs = int(head.out.out_features) if hasattr(head, "out") else 2  # type: ignore[union-attr,arg-type]
    names = list(held.labels) if len(held.labels) == n_outputs else _tags(sent, n_outputs)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = None
    if auto_of(sent) == "AutoModelForSequenceClassification":
        kind = "multi_label_classification" if held.task.multi_label else "single_label_classification"
        config.problem_type = "regression" if held.task.best in ("r2", "spearman") else kind
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = ports_of(held.base, held.model.trunk, head).pad
    config.dtype = "float32"
    return config


def _tags(sent: Sent, n_outputs: int) -> list[str]:
    from penjing.data.schemes import tag_names

    if sent.held.task.name == "tag":
        settings = sent.card["task"].get("tag", {}) if isinstance(sent.card["task"], dict) else {}
        names = tag_names(list(sent.held.labels), settings.get("decode", "bio"))
        if len(names) == n_outputs:
            return names
    return [f"LABEL_{i}" for i in range(n_outputs)]


def _write(sent: Sent, folder: Path) -> None:
    from safetensors.torch import save_file

    held = sent.held
    head, trunk, base = held.model.head, held.model.trunk, held.base
    with quiet():
        if isinstance(head, WordHead):
            head.save(trunk, folder, base.tokenizer)
        else:
            config, state = state_of(sent)
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
            config.save_pretrained(folder)
        if base.way.sight is not None:
            base.way.sight.save(folder)
        else:
            save_words(sent, folder)


def save_words(sent: Sent, folder: Path) -> None:
    """Write the tokenizer as it reads rows here: cut at the bundle's length, and with a token to pad by."""
    words = copy.deepcopy(sent.held.base.tokenizer)
    words.model_max_length = sent.held.max_length
    if words.pad_token is None:
        pad = ports_of(sent.held.base, sent.held.model.trunk, sent.held.model.head).pad
        words.pad_token = words.convert_ids_to_tokens(pad)
    words.save_pretrained(folder)


def _opened(sent: Sent, folder: Path) -> Run:
    import transformers

    kind = auto_of(sent)
    with quiet():
        model, info = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    lost = [*info["missing_keys"], *info["unexpected_keys"]]
    if lost:
        raise NotSupported(
            f"{kind} was to open {folder} whole; {len(lost)} tensors found no place, such as "
            f"{sorted(lost)[0]}. This "
            "family's class has other layers: export to `onnx`."
        )
    model.eval()

    def run(tables: Tables) -> list[np.ndarray]:
        given = {name: torch.from_numpy(table) for name, table in tables.items()}
        if kind == "AutoModelForMultipleChoice":
            given = {name: table[:, None] for name, table in given.items()}
        with torch.inference_mode():
            out = model(**given)
        if kind == "AutoModelForQuestionAnswering":
            return [torch.stack([out.start_logits, out.end_logits], -1).numpy()]
        return [out.logits.float().numpy()]

    return run
