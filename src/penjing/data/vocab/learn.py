"""Learn a tokenizer from texts: pieces through `tokenizers`, saved in transformers' format.

The texts are gone through as a stream, twice where rare characters are left out (they are counted first). The
result is a function of the texts in their order and the settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from penjing.data.vocab.segment import has_han, words
from penjing.data.vocab.settings import Settings
from penjing.errors import DataError, SpecError

Texts = Callable[[], Iterable[str]]
DIGITS, STEP = 6, 1e-4  # of Unigram's scores
_BREAK = "\ue000"  # private use: stands between Chinese words while pieces are learnt


@dataclass(frozen=True)
class Learnt:
    """A tokenizer (transformers' fast one), what the corpus held, and what is worth knowing."""

    tokenizer: Any
    n_texts: int
    n_characters: int
    alphabet: int  # distinct characters of the corpus that are known; 0 where bytes cover all
    rare: int  # distinct characters left out, unknown from now on
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Counted:
    n_texts: int
    n_characters: int
    kept: frozenset[str]
    rare: frozenset[str]


def learn(texts: Texts, asked: Settings) -> Learnt:
    """A tokenizer of these texts. `texts()` gives them from the start each time it is called.

    Raises:
        DataError: there is no text.
        SpecError: the vocabulary has no room for the characters of the corpus.
        NotSupported: `chinese: words` without its segmenter.
    """
    counted = _count(texts(), asked)
    if asked.kind == "char":
        inner = _characters(asked, counted)
    else:
        _has_room(asked, counted)
        inner = _trained(texts, asked, counted)
    _finish(inner, asked)
    return Learnt(
        _dressed(inner, asked),
        counted.n_texts,
        counted.n_characters,
        0 if asked.kind == "bpe" else len(counted.kept),
        len(counted.rare),
        tuple(_notes(inner, asked, counted)),
    )


def _count(texts: Iterable[str], asked: Settings) -> _Counted:
    found: Counter[str] = Counter()
    n_texts = n_characters = 0
    exact = asked.kind == "char"
    prepare = _normalizer(asked)
    for text in texts:
        n_texts += 1
        n_characters += len(text)
        if asked.kind != "bpe":
            found.update(prepare.normalize_str(text) if exact and prepare else text)
    if not n_characters or (asked.kind != "bpe" and not exact and not any(not c.isspace() for c in found)):
        raise DataError(
            f"A corpus was wanted to learn a tokenizer from; {n_texts:,} texts with {n_characters:,} "
            "characters were found, none of them more than white space. Give files with text."
        )
    known = Counter(found) if exact else Counter({c: n for c, n in found.items() if not c.isspace()})
    budget, kept = asked.coverage * known.total(), set()
    for character, n in sorted(known.items(), key=lambda item: (-item[1], item[0])):
        if budget <= 0:
            break
        kept.add(character)
        budget -= n
    return _Counted(n_texts, n_characters, frozenset(kept), frozenset(known.keys() - kept))


def _has_room(asked: Settings, counted: _Counted) -> None:
    assert asked.size is not None
    special = len(asked.first) + len(asked.special.last)
    if asked.kind == "bpe" or asked.size >= special + len(counted.kept):
        return
    raise _no_room(asked, special + len(counted.kept), len(counted.kept))


def _no_room(asked: Settings, needed: int, alphabet: int) -> SpecError:
    return SpecError(
        f"`vocab` is {asked.size:,}; the special words and the {alphabet:,} characters of this corpus need "
        f"{needed:,} ids before the first longer piece. Give more, leave out more of the rare characters "
        f"(`coverage` is {asked.coverage:g}), or take `kind: bpe`, whose 256 bytes spell every character."
    )


def _normalizer(asked: Settings) -> Any:
    from tokenizers import normalizers

    forms: dict[str, Any] = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}
    steps = [forms[asked.form]()] if asked.form in forms else []
    if asked.kind == "wordpiece":
        characters = asked.chinese == "characters"
        steps.append(normalizers.BertNormalizer(handle_chinese_chars=characters, lowercase=asked.lower))
    elif asked.lower:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps) if len(steps) > 1 else steps[0] if steps else None


def _pre_tokenizer(asked: Settings) -> Any:
    from tokenizers import Regex, pre_tokenizers

    if asked.kind == "wordpiece":
        return pre_tokenizers.BertPreTokenizer()
    steps: list[Any] = []
    if asked.chinese == "characters":
        steps.append(pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"))
    if asked.kind == "unigram":
        steps.append(pre_tokenizers.Metaspace(prepend_scheme="first"))
    elif asked.special.split is None:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    else:
        steps.append(pre_tokenizers.Split(Regex(asked.special.split), "isolated"))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]


def _untrained(asked: Settings) -> Any:
    from tokenizers import Tokenizer, decoders, models

    decoder: Any
    unknown = asked.roles.get("unk")
    if asked.kind == "bpe":
        inner, decoder = Tokenizer(models.BPE()), decoders.ByteLevel()
    elif asked.kind == "wordpiece":
        longest = 100 if asked.chinese == "characters" else 1000  # a longer word, or run, is unknown
        model = models.WordPiece(unk_token=unknown, max_input_chars_per_word=longest)
        inner, decoder = Tokenizer(model), decoders.WordPiece()
    else:
        inner, decoder = Tokenizer(models.Unigram()), decoders.Metaspace(prepend_scheme="first")
    inner.decoder = decoder
    normalizer = _normalizer(asked)
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = _pre_tokenizer(asked)
    return inner


def _trained(texts: Texts, asked: Settings, counted: _Counted) -> Any:
    """A tokenizer with its pieces, the same each time.

    tokenizers goes through its table of words in another order in every process. Byte-level BPE does not
    mind. WordPiece breaks ties by the ids of `##a`, which it gives as it meets them: a first pass learns no
    piece and finds which there are. For Unigram see `_scored`.
    """
    assert asked.size is not None
    size = asked.size - len(asked.special.last)
    first = asked.first
    if asked.kind == "wordpiece":
        inner = _untrained(asked)
        _train(inner, texts, asked, counted, 0, first)
        first = [*first, *sorted(piece for piece in inner.get_vocab() if piece.startswith("##"))]
    inner = _untrained(asked)
    _train(inner, texts, asked, counted, size, first)
    if inner.get_vocab_size() > size:  # the trainers keep every character, whatever was asked for
        raise _no_room(asked, inner.get_vocab_size() + len(asked.special.last), len(counted.kept))
    return inner if asked.kind == "bpe" else _ordered(inner, asked)


def _ordered(inner: Any, asked: Settings) -> Any:
    """Without the `##a` among the special words; the pieces of Unigram in one order."""
    import json

    from tokenizers import Tokenizer

    plain = json.loads(inner.to_str())
    plain["added_tokens"] = [one for one in plain["added_tokens"] if one["content"] in asked.first]
    if asked.kind == "unigram":
        pieces = plain["model"]["vocab"]
        pieces[len(asked.first) :] = _scored(pieces[len(asked.first) :])
    return Tokenizer.from_str(json.dumps(plain))


def _scored(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Unigram's pieces by score, then by name; the same for the same texts.

    Characters that pruning had dropped come back with scores `STEP` apart from the lowest one up, in an
    order that differs from run to run: here they have them by name.
    """
    scores = {piece: round(score, DIGITS) for piece, score in pieces}
    lowest = min(scores.values())
    singles = sorted((score, piece) for piece, score in scores.items() if len(piece) == 1)
    back: list[str] = []
    for score, piece in singles:
        if score > lowest + STEP * len(back) + STEP / 2:
            break
        back.append(piece)
    for i, piece in enumerate(sorted(back, reverse=True)):
        scores[piece] = round(lowest + STEP * i, DIGITS)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


def _train(inner: Any, texts: Texts, asked: Settings, counted: _Counted, size: int, first: list[str]) -> None:
    """Learn pieces, up to `size` ids in all; `first` have the first ids."""
    from tokenizers import Regex, pre_tokenizers, trainers

    common: dict[str, Any] = {"vocab_size": size, "special_tokens": first, "show_progress": False}
    if asked.kind == "bpe":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(min_frequency=asked.min_count, initial_alphabet=alphabet, **common)
    elif asked.kind == "wordpiece":
        trainer = trainers.WordPieceTrainer(min_frequency=asked.min_count, limit_alphabet=1 << 30, **common)
    else:
        trainer = trainers.UnigramTrainer(unk_token=asked.roles["unk"], **common)
    usual = inner.pre_tokenizer
    if asked.chinese == "words" and asked.kind != "wordpiece":
        apart = pre_tokenizers.Split(Regex(_BREAK), "removed")
        inner.pre_tokenizer = pre_tokenizers.Sequence([apart, usual])
    try:
        inner.train_from_iterator(_prepared(texts(), asked, counted), trainer)
    except Exception as error:  # tokenizers raises bare Exception
        if type(error) is not Exception:
            raise
        raise _no_room(asked, size + 1, len(counted.kept)) from error
    inner.pre_tokenizer = usual


def _prepared(texts: Iterable[str], asked: Settings, counted: _Counted) -> Iterator[str]:
    """The texts without rare characters, Chinese words set apart where that was asked for."""
    rare = {ord(character): " " for character in counted.rare}
    apart = " " if asked.kind == "wordpiece" else _BREAK
    for text in texts:
        if rare:
            text = text.translate(rare)
        yield _apart(text, apart) if asked.chinese == "words" and has_han(text) else text


def _apart(text: str, sign: str) -> str:
    """The text with a sign between neighbouring words of Chinese."""
    parts, last = [], 0
    for begin, end in words(text):
        touching = begin == last > 0 and has_han(text[begin - 1 : begin + 1])
        parts += [text[last:begin], sign if touching else "", text[begin:end]]
        last = end
    return "".join([*parts, text[last:]])


def _characters(asked: Settings, counted: _Counted) -> Any:
    """Byte-pair encoding without a pair: `tokenizers` spells a text so six times faster than by a pattern."""
    from tokenizers import Tokenizer, decoders, models

    pieces = [*asked.first, *sorted(counted.kept)]
    model = models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        unk_token=asked.roles["unk"],
        cache_capacity=0,
    )
    inner = Tokenizer(model)
    inner.decoder = decoders.Fuse()
    normalizer = _normalizer(asked)
    if normalizer is not None:
        inner.normalizer = normalizer
    return inner


def _finish(inner: Any, asked: Settings) -> None:
    """Special words: those at the end of the ids, and what stands around a text."""
    from tokenizers import processors

    inner.add_special_tokens([*asked.first, *asked.special.last])
    if asked.special.single is None:
        return
    ids = [(word, inner.token_to_id(word)) for word in asked.first]
    inner.post_processor = processors.TemplateProcessing(
        single=asked.special.single, pair=asked.special.pair, special_tokens=ids
    )


def _dressed(inner: Any, asked: Settings) -> Any:
    """As transformers wants it."""
    from transformers import PreTrainedTokenizerFast

    types = ["token_type_ids"] if asked.special.segments else []
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_input_names=["input_ids", *types, "attention_mask"],
        additional_special_tokens=[*asked.special.more, *asked.special.last],
        chat_template=asked.special.chat,
        **{f"{role}_token": word for role, word in asked.roles.items()},
    )


def _notes(inner: Any, asked: Settings, counted: _Counted) -> Iterator[str]:
    if counted.rare:
        sample = " ".join(sorted(c for c in counted.rare if c.isprintable())[:12])
        yield (
            f"{len(counted.rare):,} rare characters are unknown to it ({1 - asked.coverage:.2%} of the "
            f"text), such as {sample}"
        )
    if asked.size is not None and inner.get_vocab_size() < asked.size:
        yield (
            f"the corpus gave {inner.get_vocab_size():,} ids, not {asked.size:,}: no further piece occurs "
            f"{asked.min_count} times"
        )
