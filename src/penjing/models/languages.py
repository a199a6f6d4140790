"""Translators of many languages (mBART, NLLB, M2M100): which one they read, and which one they say.

Their tokenizers mark a text by its language, and the decoder reads the mark of the one that is wanted before
it says a word: as what it starts with (mBART), or behind that (mBART-50, NLLB, M2M100).
"""

from __future__ import annotations

import re
from typing import Any

from penjing.errors import SpecError, nearest
from penjing.models.layers import bare
from penjing.models.load import Base
from penjing.models.word_head import WordHead

CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")  # zh_CN, eng_Latn: as they stand among NLLB's words


def languages_of(tokenizer: Any) -> dict[str, int]:
    """The languages that a tokenizer marks texts by, each with its mark's id; none, of most tokenizers."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    known = getattr(tokenizer, "lang_code_to_id", None)
    if known is None:
        codes = [word for word in tokenizer.all_special_tokens if CODE.fullmatch(word)]
        known = dict(zip(codes, tokenizer.convert_tokens_to_ids(codes), strict=True))
    return {code: number for code, number in known.items() if number != tokenizer.unk_token_id}


def set_languages(base: Base, head: WordHead, task: str, source: str | None, target: str | None) -> None:
    """Have the base's tokenizer read the language `source`, and the head of `task` answer in `target`, here
    and where transformers opens what is saved of them.

    Raises:
        SpecError: the base knows several and none is named, or not this one; it knows none and one is named.
    """
    tokenizer, known = base.tokenizer, languages_of(base.tokenizer)
    for key, code in (("source_language", source), ("target_language", target)):
        _refuse(base.name, f"{task}.{key}", code, known)
    if source is None or target is None:
        return
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    mark, model = known[target], head.own.model
    if tokenizer(text_target=".")["input_ids"][0] == mark:
        head.first = model.generation_config.forced_bos_token_id = mark
    else:
        for config in (bare(base.trunk).config, model.config, model.generation_config):
            config.decoder_start_token_id = mark


def _refuse(name: str, key: str, code: str | None, known: dict[str, int]) -> None:
    some = ", ".join([*known][:6])
    if known and code is None:
        raise SpecError(
            f"`{key}` was wanted: the base `{name}` knows {len(known)} languages ({some}, …), and "
            "none is named. Say both `source_language` and `target_language`."
        )
    if code is not None and not known:
        raise SpecError(
            f"`{key}` is {code!r}; the base `{name}` marks no languages, and it would be ignored. "
            "Leave it out (T5 is told by `prefix`)."
        )
    if code is not None and code not in known:
        raise SpecError(
            f"`{key}` is {code!r}; the base `{name}` knows {len(known)} languages ({some}, …)."
            f"{nearest(code, [*known])} Give one of its codes."
        )
