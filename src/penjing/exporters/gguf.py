"""One file for llama.cpp and all that stands on it: weights, metadata, words and merges.

The file is read back twice: metadata and tensors by the gguf package, and the whole by transformers' own
loader of such files, whose next-word scores must be those of the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from penjing.errors import NotSupported
from penjing.exporter import Exporter, Sent, refuse_shapes, wanted
from penjing.exporters.hf import auto_of
from penjing.models.embedding import whole_state
from penjing.models.layers import bare
from penjing.models.load import quiet
from penjing.models.padded import Run, Tables, ports_of
from penjing.models.word_head import WordHead

FILE = "model.gguf"
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # kinds of words, as llama.cpp counts them
# llama.cpp knows how text is cut before merging by a name; these patterns of tokenizer.json have one.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS = {_LETTERS + r"\p{N}" + _REST: "qwen2", _LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe"}


@dataclass(frozen=True)
class _Family:
    """What llama.cpp asks of a family: its name there, and which weights lie otherwise than in
    transformers."""

    arch: str
    pairs: bool = False  # queries and keys are turned in neighbouring pairs, not in halves
    turned: bool = False  # linear layers are Conv1D, (inputs, outputs)


FAMILIES = {
    "gpt2": _Family("gpt2", turned=True),
    "llama": _Family("llama", pairs=True),
    "qwen2": _Family("qwen2"),
    "qwen3": _Family("qwen3"),
}


def gguf(*, weights: Literal["f32", "f16"] = "f32") -> Exporter:
    """model.gguf of a causal language model: GPT-2, Llama, Qwen 2 and 3 with byte-level words.

    weights: type that matrices are kept in. `f16` halves the file and rounds: give `--tolerance` for it.
    Fewer bits are made of this file by llama.cpp's own `llama-quantize`. Takes `penjing[export]`.
    """

    def write(sent: Sent, folder: Path) -> None:
        _write(sent, folder / FILE, half=weights == "f16")

    return Exporter(
        "gguf",
        _fits,
        write,
        _opened,
        lambda sent: f"AutoModelForCausalLM.from_pretrained('{{folder}}', gguf_file='{FILE}')",
        needs=("gguf",),
    )


def _fits(sent: Sent) -> Sequence[str]:
    wanted("gguf", "export", "A file of llama.cpp")
    refuse_shapes(sent, "gguf")
    config: Any = bare(sent.held.model.trunk).config
    family = config.model_type
    if not isinstance(sent.held.model.head, WordHead) or auto_of(sent) != "AutoModelForCausalLM":
        raise NotSupported(
            f"A language model that says each word from those before was wanted; `{sent.held.task.name}` of "
            "the bundle "
            f"in {sent.folder} is none. Export to `onnx`, `openvino` or `hf`."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    odd = {
        f"its family `{family}`": family not in FAMILIES,
        f"positions by `{rope.get('rope_type')}`": rope.get("rope_type", "default") != "default",
        f"activation `{getattr(config, 'hidden_act', '')}`": getattr(config, "hidden_act", "silu") != "silu",
        "attention within a window": bool(getattr(config, "use_sliding_window", False)),
    }
    for what, is_so in odd.items():
        if is_so:
            raise NotSupported(
                f"A file of llama.cpp was wanted for the bundle in {sent.folder}; {what} is none that this "
                "exporter "
                f"writes. Those are {', '.join(FAMILIES)}, as they came first. Export to `hf`, which "
                "llama.cpp's own "
                "converter reads."
            )
    _words(sent)
    return ()


def _write(sent: Sent, path: Path, *, half: bool) -> None:
    library: Any = wanted("gguf", "export", "A file of llama.cpp")
    trunk = bare(sent.held.model.trunk)
    config: Any = trunk.config
    family = FAMILIES[config.model_type]
    writer = library.GGUFWriter(str(path), family.arch)
    writer.add_name(f"penjing {sent.held.task.name}")
    writer.add_file_type(int(library.LlamaFileType.MOSTLY_F16 if half else library.LlamaFileType.ALL_F32))
    for name, value in _facts(config).items():
        getattr(writer, f"add_{name}")(value)
    words = _words(sent)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words["cut"])
    writer.add_token_list(words["tokens"])
    writer.add_token_types(words["types"])
    writer.add_token_merges(words["merges"])
    for role, number in words["special"].items():
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(words["begins"])
    if words["template"]:
        writer.add_chat_template(words["template"])
    for name, tensor in _tensors(sent, library, family):
        writer.add_tensor(name, tensor.astype(np.float16) if half and tensor.ndim > 1 else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _facts(config: Any) -> dict[str, Any]:
    """Metadata by the writer's names."""
    heads, width = int(config.num_attention_heads), int(config.hidden_size)
    found: dict[str, Any] = {
        "context_length": int(config.max_position_embeddings),
        "embedding_length": width,
        "block_count": int(config.num_hidden_layers),
        "head_count": heads,
        "vocab_size": int(config.vocab_size),
    }
    if config.model_type == "gpt2":
        inner = config.n_inner or 4 * width
        return {
            **found,
            "feed_forward_length": int(inner),
            "layer_norm_eps": float(config.layer_norm_epsilon),
        }
    each = int(getattr(config, "head_dim", None) or width // heads)
    return {
        **found,
        "feed_forward_length": int(config.intermediate_size),
        "head_count_kv": int(config.num_key_value_heads),
        "layer_norm_rms_eps": float(config.rms_norm_eps),
        "rope_freq_base": float(config.rope_parameters["rope_theta"]),
        "rope_dimension_count": each,
        "key_length": each,
        "value_length": each,
    }


def _tensors(sent: Sent, library: Any, family: _Family) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor by llama.cpp's name, laid out as it reads them, fp32."""
    held = sent.held
    trunk, head = bare(held.model.trunk), held.model.head
    assert isinstance(head, WordHead)
    config: Any = trunk.config
    arch = next(kind for kind, name in library.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = library.get_tensor_name_map(arch, int(config.num_hidden_layers))
    prefix = f"{head.own.model.base_model_prefix}."
    state: dict[str, Tensor] = {prefix + name: tensor for name, tensor in whole_state(trunk).items()}
    if not any(own is head.out.weight for own in trunk.parameters()):
        state["lm_head.weight"] = head.out.weight
    for name, tensor in state.items():
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise NotSupported(
                f"A place in a file of llama.cpp was wanted for `{name}`; {family.arch} has none. Export to "
                "`hf`."
            )
        values = tensor.detach().float().cpu().numpy()
        if family.turned and values.ndim == 2 and (".attn_" in place or ".ffn_" in place):
            values = values.T
        if family.pairs and (".attn_q." in place or ".attn_k." in place):
            n = int(config.num_attention_heads if ".attn_q." in place else config.num_key_value_heads)
            values = values.reshape(n, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        yield place, np.ascontiguousarray(values)


def _words(sent: Sent) -> dict[str, Any]:
    """The tokenizer in llama.cpp's terms: words by number with their kinds, merges, how text is cut, and the
    special ones.

    Raises:
        NotSupported: it is not a byte-level one of merges, or cuts text in a way that has no name there.
    """
    tokenizer = sent.held.base.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    about: Mapping[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    cut = _cut_of(about.get("pre_tokenizer") or {})
    kind = (about.get("model") or {}).get("type", "not of the tokenizers library")
    normal = (about.get("normalizer") or {}).get("type", "NFC")  # Qwen's, which llama.cpp leaves out
    if kind != "BPE" or cut is None or normal != "NFC":
        raise NotSupported(
            "Byte-level words made by merges were wanted, cut as GPT-2, Llama 3 or Qwen 2 do; the tokenizer "
            "of "
            f"{sent.held.base.name} is {kind} with another cut or normalizer. Export to `hf`, and convert "
            "with "
            "llama.cpp's own script."
        )
    n_rows = int(bare(sent.held.model.trunk).config.vocab_size)
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    types = [UNUSED] * n_rows
    for word, i in tokenizer.get_vocab().items():
        tokens[i], types[i] = word, NORMAL
    for i, one in tokenizer.added_tokens_decoder.items():
        types[i] = CONTROL if one.special else USER
    merges = [one if isinstance(one, str) else " ".join(one) for one in about["model"]["merges"]]
    known = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    first = (tokenizer("a")["input_ids"] or [None])[0]
    return {
        "cut": cut,
        "tokens": tokens,
        "types": types,
        "merges": merges,
        "special": {role: int(i) for role, i in known.items() if i is not None},
        "begins": first is not None and first == known["bos"],
        "template": tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    }


def _cut_of(pre: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of how a tokenizer cuts text into words."""
    if pre.get("type") == "ByteLevel":
        return "gpt-2" if pre.get("use_regex", True) else None
    if pre.get("type") == "Sequence":
        for one in pre["pretokenizers"]:
            if one.get("type") == "Split":
                return CUTS.get((one.get("pattern") or {}).get("Regex", ""))
    return None


def _opened(sent: Sent, folder: Path) -> Run:
    import torch
    from transformers import AutoModelForCausalLM

    _read_back(sent, folder / FILE)
    own: Any = bare(sent.held.model.trunk).config
    config = type(own).from_dict(own.to_dict())  # transformers' loader reads not every size from the file
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=FILE, config=config, dtype=torch.float32
        ).eval()
    names = ports_of(sent.held.base, sent.held.model.trunk, sent.held.model.head).inputs

    def run(tables: Tables) -> list[np.ndarray]:
        with torch.no_grad():
            return [model(**{name: torch.from_numpy(tables[name]) for name in names}).logits.numpy()]

    return run


def _read_back(sent: Sent, path: Path) -> None:
    """Metadata, words and names of tensors as the gguf package reads them.

    Raises:
        NotSupported: they are not what was to be written.
    """
    library: Any = wanted("gguf", "export", "A file of llama.cpp")
    reader = library.GGUFReader(str(path))
    words = _words(sent)
    family = FAMILIES[bare(sent.held.model.trunk).config.model_type]
    wished = {
        "general.architecture": family.arch,
        f"{family.arch}.block_count": int(bare(sent.held.model.trunk).config.num_hidden_layers),
        "tokenizer.ggml.tokens": words["tokens"],
        "tokenizer.ggml.merges": words["merges"],
        "tokenizer.ggml.pre": words["cut"],
    }
    found = {name: reader.fields[name].contents() for name in wished if name in reader.fields}
    tensors = {one.name for one in reader.tensors}
    lost = [name for name, value in wished.items() if found.get(name) != value]
    lost += [name for name, _ in _tensors(sent, library, family) if name not in tensors]
    if lost:
        raise NotSupported(
            f"{path.name} was to hold `{lost[0]}` as it was written; read back it does not ({len(lost)} so). "
            "Nothing is "
            "kept: export to `hf`."
        )
