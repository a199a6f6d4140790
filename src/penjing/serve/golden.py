"""Golden inputs: what a bundle answered when it was registered, asked again whenever it is opened.

They are the same few inputs for every bundle of a task, none of them a user's. Another answer means that
something on the way (weights, tokenizer, a library, the machine) is no longer what it was, and the bundle
is not served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.bundle import Bundle
from penjing.data.parts import rows_of
from penjing.errors import DataError, NotSupported
from penjing.models.generate import Prompts, generate
from penjing.serve.speaking import is_language, prompts_to_go_on

TEXTS = (
    "My card was charged twice for one order.",
    "快递三天了还没有到,可以退款吗?",
    "Order 4711: 3 x A-12, 59.90 EUR in all (VAT included)",
    "no",
)
TOLERANCE = {"fp32": 1e-3}  # of numbers, relative above 1; other types
COARSE = 0.05
SAID = 8  # tokens of a text


def _image(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.kron(drawn, np.ones((8, 8, 1), dtype=np.uint8))


INPUTS: Mapping[str, Sequence[Any]] = {
    "texts": TEXTS,
    "questions": [{"question": "What was charged?", "context": TEXTS[0]}],
    "choices": [{"question": TEXTS[0], "choices": ["billing", "delivery", "退款"]}],
    "pairs": [[TEXTS[0], TEXTS[2]], [TEXTS[1], TEXTS[1]]],
    "relations": ["<e1>Ada</e1> worked for <e2>Babbage</e2> in London.", "<e2>杭州</e2>在<e1>浙江</e1>。"],
}


def make(bundle: Bundle) -> dict[str, Any]:
    """What golden.json holds of a bundle.

    Raises:
        NotSupported: it answers none of the inputs.
    """
    said = ""
    for name in ("images",) if bundle.task.sees else INPUTS:
        try:
            answers = _asked(bundle, name)
        except DataError as error:
            said = str(error)
            continue
        return {"inputs": name, "precision": bundle.machine.precision, "answers": answers}
    raise NotSupported(
        f"{bundle!r} was to answer a few golden inputs before it is served; it answers none "
        f"({said[:200]}). Serve "
        "a bundle of a task that answers texts, questions, choices, pairs, relations or images."
    )


def check(bundle: Bundle, golden: Mapping[str, Any]) -> None:
    """Ask the golden inputs again. In another precision than theirs numbers may differ by a twentieth, and
    words are not compared.

    Raises:
        NotSupported: an answer is another one.
    """
    same = golden["precision"] == bundle.machine.precision
    tolerance = TOLERANCE.get(bundle.machine.precision, COARSE) if same else COARSE
    apart = _differs(golden["answers"], _asked(bundle, golden["inputs"]), tolerance, words=same)
    if apart:
        raise NotSupported(
            f"{bundle!r} answers its golden inputs otherwise than when it was registered: {apart}. Weights, "
            "tokenizer or a library changed. It is not served; register it anew if that was meant."
        )


def _asked(bundle: Bundle, name: str) -> list[Any]:
    inputs = [_image(0), _image(1)] if name == "images" else INPUTS[name]
    task = bundle.task
    if is_language(bundle):
        return [
            {"text": text} for text in _said(bundle, [prompts_to_go_on(bundle, str(one)) for one in inputs])
        ]
    if task.feed:
        raise DataError("a language model that reads both ways answers nothing by itself")
    part = bundle.part((task.ask or rows_of)(inputs), labelled=False)
    if task.prompts is not None:
        return [{"text": text} for text in _said(bundle, [task.prompts(part)])]
    return task.answers(bundle.infer(part), bundle.labels, bundle.card["chosen"])


def _said(bundle: Bundle, asked: Sequence[Prompts]) -> list[str]:
    """The first few words of each text."""
    found = []
    for prompts in asked:
        how = replace(prompts.how, max_new=min(SAID, prompts.how.max_new), min_new=0)
        model: Any = bundle.model
        said = generate(model, prompts.rows, how, stop=prompts.stop, limit=prompts.limit)
        found += [prompts.text(best[0].ids) for best in said]
    return found


def _differs(wanted: Any, found: Any, tolerance: float, *, words: bool, where: str = "") -> str:
    """Where two answers differ; empty where they do not. Of a classifier only the scores count: of two equal
    ones either may be the label."""
    number = int | float
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = ["scores"] if wanted.get("scores") and found.get("scores") else sorted({*wanted, *found})
        inner = [(key, wanted.get(key), found.get(key)) for key in keys]
    elif isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        if len(wanted) != len(found):
            return f"{where or 'the answers'}: {len(wanted)} were wanted, {len(found)} found" if words else ""
        inner = [(str(i + 1), a, b) for i, (a, b) in enumerate(zip(wanted, found, strict=True))]
    elif isinstance(wanted, number) and isinstance(found, number) and not isinstance(wanted, bool):
        near = abs(wanted - found) <= tolerance * max(1.0, abs(wanted))
        return "" if near else f"{where}: {wanted:.6g} was wanted, {found:.6g} found"
    else:
        same = wanted == found or not words
        return "" if same else f"{where}: {wanted!r:.80} was wanted, {found!r:.80} found"
    for key, a, b in inner:
        said = _differs(a, b, tolerance, words=words, where=f"{where}/{key}" if where else f"answer {key}")
        if said:
            return said
    return ""
