"""Bundles that say words: what they are asked to go on from, and their answer as it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penjing.bundle import Bundle
from penjing.data.feed import ends_of
from penjing.errors import DataError, NotSupported
from penjing.models.decoding import Decoding
from penjing.models.forms import form_of, rule_of
from penjing.models.generate import Prompts
from penjing.models.spoken import Spoken
from penjing.models.word_head import WordHead


@dataclass(frozen=True)
class Wish:
    """How a caller wants a text said; None leaves it to the bundle."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


def is_language(bundle: Bundle) -> bool:
    """Whether it is a language model as it was pretrained, which goes on from any text."""
    return (
        bundle.task.feed is not None
        and bundle.base.kind == "decoder"
        and isinstance(bundle.model.head, WordHead)
    )


def prompts_to_answer(bundle: Bundle, inputs: Sequence[Any]) -> Prompts:
    """What the bundle's task makes of inputs.

    Raises:
        NotSupported: its answers are not words. DataError: not what the task takes.
    """
    task = bundle.task
    if task.prompts is None or task.ask is None:
        raise NotSupported(
            f"Words were wanted; a bundle of `{task.name}` says none. Ask it by /v1/predict, or ask a "
            "bundle of "
            "`chat`, `generate`, `summarize` or `translate`."
        )
    found = task.prompts(bundle.part(task.ask(list(inputs)), labelled=False))
    assert isinstance(found, Prompts)
    return found


def prompts_to_go_on(bundle: Bundle, text: str) -> Prompts:
    """A text as it is, for a decoder to go on from; for other bundles what their task makes of it.

    Raises:
        NotSupported: its answers are not words. DataError: the text has no token.
    """
    if bundle.base.kind != "decoder" or not isinstance(bundle.model.head, WordHead):
        return prompts_to_answer(bundle, [text])
    first, last = ends_of(bundle.tokenizer)
    ids = bundle.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    how, stop = Decoding(max_new=16), {*last}
    if bundle.task.prompts is not None:
        own = prompts_to_answer(bundle, [text if text.strip() else "."])
        how, stop = own.how, {*own.stop, *last}
    if not [*first, *ids]:
        raise DataError("The prompt has no token, and this model has none to begin with. Give it a word.")
    words = bundle.tokenizer
    return Prompts(
        [[*first, *ids]],
        how,
        tuple(sorted(stop)),
        bundle.base.limit,
        lambda said: said,
        lambda said: str(words.decode([*said], skip_special_tokens=True)),
    )


def wished(prompts: Prompts, wish: Wish) -> Prompts:
    """The prompts with what a caller wants of how they are answered.

    Raises:
        SpecError: settings without sense.
    """
    how = prompts.how
    if wish.temperature == 0:
        how = replace(how, sample=False, temperature=1.0, top_k=0, top_p=1.0)
    elif wish.temperature is not None or wish.top_p is not None:
        warmth, share = wish.temperature or how.temperature, wish.top_p or how.top_p
        how = replace(how, sample=True, temperature=warmth, top_p=share, beams=1, best=1)
    if wish.seed is not None:
        how = replace(how, seed=wish.seed)
    if wish.max_tokens is not None:
        how = replace(how, max_new=wish.max_tokens, min_new=min(how.min_new, wish.max_tokens))
    return replace(prompts, how=how)


def formed(prompts: Prompts, bundle: Bundle, form: dict[str, Any] | None) -> Prompts:
    """The prompts whose answers have a form (docs/forms.md); themselves without one.

    Raises:
        SpecError, NotSupported: the form, or this bundle's tokenizer, cannot be followed.
    """
    if form is None:
        return prompts
    rule = rule_of(bundle.tokenizer, form_of(form), prompts.stop)
    return replace(prompts, allow=rule.allow, text=rule.text)


class Growing:
    """A text as it grows: `more` gives what is new and will not change, `rest` the remainder at the end.
    What may be the beginning of one of `ends` is held back, and everything from it on is left out."""

    def __init__(self, text: Callable[[Sequence[int]], str], ends: Sequence[str]) -> None:
        self._text, self._ends = text, [end for end in ends if end]
        self._spoken = Spoken(text)
        self.said = ""
        self.ended = False

    def more(self, ids: Sequence[int], *, last: bool = False) -> str:
        """What is new of the text of all ids so far."""
        if self.ended:
            return ""
        text = self._text(ids) if last else self._spoken.more(ids)
        places = (text.find(end, len(self.said)) for end in self._ends)  # none begins in what was given out
        if found := [place for place in places if place >= 0]:
            text, self.ended = text[: min(found)], True
        elif self._ends and not last:
            text = text[: len(text) - self._held(text)]
        if not text.startswith(self.said):  # a tokenizer that writes earlier words anew
            return ""
        new, self.said = text[len(self.said) :], text
        return new

    def _held(self, text: str) -> int:
        """Characters at the end that may begin one of the ends."""
        sizes = [n for end in self._ends for n in range(1, len(end)) if text.endswith(end[:n])]
        return max(sizes, default=0)
