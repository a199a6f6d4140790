"""What a bundle sees of rows, to be compared with later rows: kept beside the bundle when its run ends.

`reference.safetensors` holds what is known of up to 1,000 validation rows, which the model did not learn
from: their vectors along the principal components, lengths, shares of unknown and unseen tokens, languages,
answers, confidence, and which were answered rightly. No text is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.bundle import Bundle
from penjing.bundle_card import card_bytes
from penjing.data.taught import same
from penjing.data.tokenize import tokenize
from penjing.drift.vectors import Axes, axes_of
from penjing.drift.verdict import Seen
from penjing.engine.scoring import embed
from penjing.errors import NotSupported
from penjing.files import sha256, standing, write_json, write_with
from penjing.models.ensemble import Ensemble
from penjing.models.model import Model
from penjing.records import Rows, Tokens

FILE = "reference.safetensors"
ROWS = 1000  # more make no test sharper that compares them with a few hundred


@dataclass(frozen=True)
class Reference:
    """What new rows are compared with. known: (V,) bool, the token ids of the train rows."""

    axes: Axes | None  # none of an encoder-decoder, whose states are those of what it says
    known: np.ndarray | None
    seen: Seen


def watchable(bundle: Bundle) -> bool:
    """Whether there is something to compare: rows of texts, not a corpus or images."""
    return not (bundle.task.feed or bundle.task.sees)


def measure(
    bundle: Bundle,
    rows: Rows,
    axes: Axes | None,
    *,
    known: np.ndarray | None = None,
    answers: Sequence[dict[str, Any]] | None = None,
    labelled: bool = True,
) -> Seen:
    """What is known of rows; vectors along the axes, where there are some.

    answers: as the bundle gave them before; it is asked now when None and when answers cost one pass.
    """
    tokens = tokenize(bundle.tokenizer, rows.texts, max_length=bundle.card["max_length"], cache=False)
    if answers is None and not (bundle.task.speaks or bundle.task.whole):
        answers = bundle.answer(rows)
    names, sure = answered(answers or [])
    teach, told = bundle.task.teach, labelled and (rows.items is not None or all(rows.labels))
    right = rightly(answers, teach.truths(rows)) if told and answers and teach else None
    unknown = getattr(bundle.tokenizer, "unk_token_id", None)
    return Seen(
        lengths=tokens.lengths,
        vectors=None if axes is None else axes.project(vectors_of(bundle, tokens)).astype(np.float32),
        unknown=None if unknown is None else _share(tokens, tokens.ids == unknown),
        unseen=None if known is None else _share(tokens, ~known[tokens.ids]),
        language=languages_of(rows.texts),
        answers=names,
        confidence=sure,
        right=right,
    )


def fitted(bundle: Bundle, rows: Rows) -> Axes:
    """The principal components of rows, other ones than are measured along them."""
    longest = bundle.card["max_length"]
    return axes_of(
        vectors_of(bundle, tokenize(bundle.tokenizer, rows.texts, max_length=longest, cache=False))
    )


def vectors_of(bundle: Bundle, tokens: Tokens) -> np.ndarray:
    """(n, D) states of the rows, pooled as the head does; of an ensemble its first member's."""
    model = bundle.model.members[0] if isinstance(bundle.model, Ensemble) else bundle.model
    assert isinstance(model, Model)
    pooling = getattr(model.head, "pooling", None) or bundle.card["base"]["pooling"]
    return embed(model, tokens, pooling).numpy()


def answered(answers: Sequence[dict[str, Any]]) -> tuple[list[str] | None, np.ndarray | None]:
    """The names that answers give, and how sure they are; None where such answers have none."""
    if not answers:
        return None, None
    names = [name for one in answers for name in _names(one) or ["(none)"]] if _named(answers) else None
    key = next((key for key in ("confidence", "value") if key in answers[0]), None)
    return names, None if key is None else np.array([one[key] for one in answers], dtype=np.float64)


def rightly(answers: Sequence[dict[str, Any]], truths: Sequence[Any]) -> np.ndarray | None:
    """(n,) bool, whether answers name what is true; None where they are no names, but more or less near."""
    found = [same(one, truth) for one, truth in zip(answers, truths, strict=True)]
    return None if not found or None in found else np.array(found, dtype=bool)


def _named(answers: Sequence[dict[str, Any]]) -> bool:
    return any(key in answers[0] for key in ("label", "labels", "entities"))


def _names(answer: dict[str, Any]) -> list[str]:
    if "label" in answer:
        return [str(answer["label"])]
    if "labels" in answer:
        return [str(name) for name in answer["labels"]]
    return [str(entity["label"]) for entity in answer.get("entities", ())]


def languages_of(texts: Sequence[str]) -> list[str]:
    """Language of each text, by its script and function words."""
    from penjing.corpus.language import languages
    from penjing.corpus.units import chunk

    return languages(texts, chunk(texts))


def _share(tokens: Tokens, hit: np.ndarray) -> np.ndarray:
    """(n,) share of each row's tokens that are hit."""
    sums = np.concatenate([[0], np.cumsum(hit)])
    counts = sums[tokens.starts[1:]] - sums[tokens.starts[:-1]]
    return np.asarray(counts / np.maximum(tokens.lengths, 1), dtype=np.float64)


def keep_reference(bundle: Bundle, rows: Rows, train: Rows, *, seed: int = 0, cache: bool = True) -> None:
    """Write what the bundle sees of rows into its folder, in one step for readers: the card names the file.

    rows: that the model did not learn from. train: of which the known tokens are told.
    """
    if not watchable(bundle) or not len(rows):
        return
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(len(rows))[:ROWS])
    longest = bundle.card["max_length"]
    learned = tokenize(bundle.tokenizer, train.texts, max_length=longest, cache=cache)
    known = np.zeros(max(len(bundle.tokenizer), int(learned.ids.max(initial=0)) + 1), dtype=bool)
    known[np.unique(learned.ids)] = True
    some = np.sort(generator.permutation(len(train))[:ROWS])
    axes = None if bundle.task.whole or not len(train) else fitted(bundle, train.take(some))
    seen = measure(bundle, rows.take(drawn), axes, known=known)
    _write(standing(bundle.folder), bundle, Reference(axes, known, seen), len(drawn))


def hand_on(source: Bundle, bundle: Bundle) -> None:
    """Give a bundle what another one that answers alike keeps of the rows it saw; nothing where that keeps
    none."""
    if FILE in source.card["files"]:
        shutil.copyfile(standing(source.folder) / FILE, standing(bundle.folder) / FILE)
        _name(standing(bundle.folder), bundle, source.card["reference"]["sample"])


def _write(folder: Path, bundle: Bundle, reference: Reference, n: int) -> None:
    from safetensors.numpy import save_file

    seen = reference.seen
    tensors: dict[str, Any] = {"known": np.packbits(np.asarray(reference.known))}
    if reference.axes is not None:
        tensors |= {key: value.astype(np.float32) for key, value in vars(reference.axes).items()}
    names: dict[str, list[str]] = {}
    for key in ("language", "answers"):
        value = getattr(seen, key)
        if value is not None:
            kinds, places = np.unique(np.asarray(value), return_inverse=True)
            names[key], tensors[key] = kinds.tolist(), places.astype(np.int32)
    for key in ("lengths", "vectors", "unknown", "unseen", "confidence", "right"):
        value = getattr(seen, key)
        if value is not None:
            tensors[key] = value if value.dtype == bool else value.astype(np.float32)
    write_with(folder / FILE, lambda path: save_file(tensors, path))
    _name(folder, bundle, {"rows": n, "tokens": len(np.asarray(reference.known)), **names})


def _name(folder: Path, bundle: Bundle, sample: dict[str, Any]) -> None:
    """Let the card name the file: from here on it is there."""
    card = json.loads(card_bytes(bundle.folder))
    card["files"][FILE] = sha256(folder / FILE)
    card["reference"] = {**card.get("reference", {}), "sample": sample}
    write_json(folder / "card.json", card)
    bundle.card.update(files=card["files"], reference=card["reference"])


def read_reference(bundle: Bundle) -> Reference:
    """What was kept with a bundle.

    Raises:
        NotSupported: nothing was: it was made before there was such a file, or of another bundle.
    """
    about = bundle.card.get("reference", {}).get("sample")
    if about is None or FILE not in bundle.card["files"]:
        raise NotSupported(
            f"{bundle!r} was to be compared with the rows it was proved on; its folder has no {FILE}: it was "
            "made by a job that keeps none, or reads no texts. Give rows like those it was trained for: "
            "`--reference rows.csv`."
        )
    from safetensors.numpy import load_file

    found = load_file(standing(bundle.folder) / FILE)
    get: Callable[[str], Any] = found.get
    axes = (
        Axes(*(found[key].astype(np.float64) for key in ("mean", "directions"))) if "mean" in found else None
    )
    known = np.unpackbits(found["known"])[: about["tokens"]].astype(bool)
    named = {key: np.asarray(about[key])[found[key]].tolist() for key in about if key in found}
    numbers = {key: get(key) for key in ("vectors", "unknown", "unseen", "confidence", "right")}
    return Reference(axes, known, Seen(lengths=found["lengths"], **numbers, **named))
