"""A model from nothing: a preset's shape, the words of a tokenizer, random weights from a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from penjing.errors import SpecError, nearest
from penjing.models.presets import PRESETS, folder_of
from penjing.models.shapes import SHAPES

ROLES = ("pad", "bos", "eos")  # special words that a config knows by id
# Not a matter of shape: the tokenizer's, or another kind of model.
REFUSED = {*(f"{role}_token_id" for role in ROLES), "is_decoder", "add_cross_attention", "use_cache"}


def config_of(name: str, *, tokenizer: Any = None, shape: Mapping[str, Any] | None = None) -> Any:
    """The transformers config of a preset to grow, for a tokenizer's words, else as many as published.

    `shape` overrides fields of the config by transformers' own names, such as `hidden_size`.

    Raises:
        SpecError: `shape` names a field that the config has not, or its values make no model.
    """
    import transformers

    known, asked = SHAPES[name], dict(shape or {})
    kind = getattr(transformers, known.config)
    values = {**known.shape, **({} if tokenizer is None else _words(name, kind, tokenizer))}
    asked = _by_own_names(name, kind, asked)
    rows, more = values.get("vocab_size", 0), asked.get("vocab_size")
    if tokenizer is not None and isinstance(more, int) and more < rows:
        raise SpecError(
            f"`shape.vocab_size` is {more}; the tokenizer gives ids up to {rows - 1:,}, so "
            f"the word table needs {rows:,} rows. Leave it out, or give at least that many."
        )
    config = _possible(name, asked, lambda: kind(**{**values, **asked}))
    if asked:  # a config does not know whether its numbers go together; the model does
        _possible(name, asked, lambda: _tried(config))
    return config


def _words(name: str, kind: Any, tokenizer: Any) -> dict[str, Any]:
    """Rows of the word table and ids of the special words."""
    words: dict[str, Any] = {"vocab_size": max(tokenizer.get_vocab().values(), default=0) + 1}
    words |= {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ROLES}
    if getattr(kind, "is_encoder_decoder", False):
        if words["pad_token_id"] is None:
            raise SpecError(
                f"The decoder of `{name}` begins with the padding word; the tokenizer in "
                f"{tokenizer.name_or_path} has none. Train one that has: `penjing tokenizer train corpus.txt "
                f"-o tok --family t5`."
            )
        words["decoder_start_token_id"] = words["pad_token_id"]
    return words


def _by_own_names(name: str, kind: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """`shape` with aliases (`hidden_size` of GPT-2) turned into the config's own names, all of them known."""
    aliases: dict[str, str] = kind.attribute_map
    fields = [field for field in kind.__annotations__ if field not in REFUSED]
    found: dict[str, Any] = {}
    for key, value in shape.items():
        own = aliases.get(key, key)
        if own not in fields:
            raise SpecError(
                f"`shape.{key}` is not a field of {kind.__name__}, the config of "
                f"`{name}`.{nearest(key, [*fields, *aliases])} Its fields: {', '.join(fields)}. Special "
                "words come from the tokenizer."
            )
        if own in found:
            raise SpecError(f"`shape` gives `{own}` twice, once as `{key}`. Keep one.")
        found[own] = value
    return found


def _possible(name: str, shape: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What `make` gives; what transformers throws at an impossible shape becomes one clear line."""
    try:
        return make()
    except Exception as error:  # ValueError, KeyError, ZeroDivisionError and kinds of its own
        said = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(
            f"`shape` {json.dumps(dict(shape), default=str)} over `{name}` makes no model: {said[:200]} "
            f"({type(error).__name__}). Change it; `penjing show presets {name}` has the shape it begins "
            "from."
        ) from error


def _tried(config: Any) -> None:
    """Build the model without weights.

    Raises:
        ValueError: numbers that do not go together.
    """
    ends = ("size", "dim", "layers", "layer", "heads", "head", "positions", "embd")
    small = [k for k, v in config.to_dict().items() if k.endswith(ends) and isinstance(v, int) and v < 1]
    if small:
        raise ValueError(f"{small[0]} must be at least 1")
    heads, keys = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if keys and heads % keys:
        raise ValueError(f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({keys})")
    with torch.device("meta"):
        fresh(config, 0)


def fresh(config: Any, seed: int, auto: Any = None) -> Any:
    """A model of a config with random weights, as transformers initialises them from this seed.

    auto: one of transformers' Auto classes; AutoModel, the trunk without a head, when not given.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (auto or AutoModel).from_config(config)


def identity(config: Any, tokenizer: Any, seed: int) -> str:
    """SHA-256 of what random weights are made from, which stands for that of a weight file."""
    plain = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    plain.pop("transformers_version", None)
    inner = getattr(tokenizer, "backend_tokenizer", None)
    words: Any = (
        None if tokenizer is None else inner.to_str() if inner else sorted(tokenizer.get_vocab().items())
    )
    about = {"config": plain, "tokenizer": words, "seed": seed}
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def words_at(name: str, tokenizer: str | Path | None) -> Path | None:
    """The folder of the tokenizer that the preset `name` is to grow with: a path, or a preset that has words;
    None where it reads images.

    Raises:
        SpecError: none was given where one is needed, one where none is, or there is no such folder.
    """
    if not SHAPES[name].words and tokenizer is not None:
        raise SpecError(
            f"`tokenizer` is {tokenizer}; `{name}` reads images and has no words. Leave it out, or take a "
            f"preset of text: {', '.join(one for one, known in SHAPES.items() if known.words)}."
        )
    if Path(name).is_dir():
        raise SpecError(
            f"`{name}` is a preset to grow, and a folder here has that name. Say `./{name}` for the folder, "
            "or rename it."
        )
    if not SHAPES[name].words:
        return None
    if tokenizer is None:
        raise SpecError(
            f"`{name}` is grown from random weights and has no words of its own; `tokenizer` is not given. "
            "Train one, `penjing tokenizer train corpus.txt -o tok`, and say `tokenizer: tok`; or take "
            f"that of a preset, `tokenizer: {next(iter(PRESETS))}`."
        )
    if str(tokenizer) in PRESETS:
        return folder_of(PRESETS[str(tokenizer)])
    folder = Path(tokenizer).expanduser()
    if not folder.is_dir():
        there = [p.name for p in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise SpecError(
            f"`tokenizer` must be a folder with tokenizer.json, as `penjing tokenizer train` writes it, or a "
            f"preset with words ({', '.join(PRESETS)}); {folder} is none.{nearest(folder.name, there)}"
        )
    return folder
