"""How a base is asked with the head it has: by masked or next words, by entailment, by nearest meaning.

`ask` turns label names and templates into queries and a head for one base; `way_of` says which way a base is
made for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from penjing.errors import NotSupported, SpecError
from penjing.models.halves import says_by_decoder
from penjing.models.load import Base
from penjing.models.own_head import own_head
from penjing.models.queries import Query, frame, pair_after, words
from penjing.models.verbalizers import EntailHead, NearestHead, WordHead

TEMPLATES = {
    "mask": ("{text} This is about {mask}.", "Topic: {mask}. {text}", "{text} Category: {mask}."),
    "causal": ("{text}\nTopic: {mask}", "{text}\nThis is about {mask}"),
}
HYPOTHESIS = "This example is about {}."
ABOUT = {
    "mask": "the words that fill the mask of {n} templates",
    "causal": "the words that follow {n} templates",
    "entail": "the hypothesis that a row entails",
    "nearest": "the label description nearest in meaning",
}


@dataclass(frozen=True)
class Asked:
    """A way to ask one base: the queries of every row (none: rows are read as they are), and the head."""

    how: str
    queries: tuple[Query, ...]
    head: Callable[[str], nn.Module]  # given how the base's states are pooled
    about: str  # for the user


def way_of(base: Base) -> str:
    """What a base is made for: `entail`, `mask`, `causal` or `nearest`, as its files say."""
    trunk: Any = base.trunk
    kind = next(iter(trunk.config.architectures or ()), "")
    if (base.folder / "modules.json").is_file():  # a sentence encoder, whatever it grew from
        return "nearest"
    if kind.endswith("ForSequenceClassification") and _outcome(base, "entail") is not None:
        return "entail"
    if kind.endswith(("ForMaskedLM", "ForPreTraining")) and base.tokenizer.mask_token_id is not None:
        return "mask"
    return "causal" if kind.endswith(("ForCausalLM", "LMHeadModel")) else "nearest"


def ask(
    base: Base,
    called: Mapping[str, str],
    *,
    how: str,
    templates: Sequence[str] | None,
    hypothesis: str | None,
    multi_label: bool = False,
    weights: bool = True,
) -> Asked:
    """The queries and the head that ask `base` which of the labels (`called`: label to words) a row has.

    Raises:
        SpecError: settings that this way does not use, templates or label words that cannot work.
        NotSupported: the base has not what this way needs.
    """
    how = way_of(base) if how == "auto" else how
    for name, given, ways in (
        ("templates", templates, ("mask", "causal")),
        ("hypothesis", hypothesis, ("entail",)),
        ("multi_label", multi_label, ("entail",)),
    ):
        if given and how not in ways:
            raise SpecError(
                f"`{name}` is given; asking the base `{base.name}` by `how: {how}` does not use it, only "
                f"{' and '.join(ways)} do. Leave it out, or choose another `how`."
            )
    about = f"the base is asked by {ABOUT[how]} (`how: {how}`)"
    if how == "nearest":
        return Asked(how, (), lambda pooling: NearestHead(base.width, len(called), pooling), about)
    if how == "entail":
        return _entail(base, called, hypothesis or HYPOTHESIS, multi_label, weights, about)
    chosen = tuple(templates or TEMPLATES[how])
    queries, answers = _gaps(base, chosen, called, how)
    return Asked(
        how,
        queries,
        lambda _: WordHead(own_head(base, how, weights=weights), queries, answers),
        about.format(n=len(chosen)),
    )


def _outcome(base: Base, begins: str) -> int | None:
    """The class of an NLI model whose name begins so."""
    trunk: Any = base.trunk
    found = (i for i, name in trunk.config.id2label.items() if str(name).lower().startswith(begins))
    return next(found, None)


def _entail(
    base: Base, called: Mapping[str, str], hypothesis: str, multi_label: bool, weights: bool, about: str
) -> Asked:
    trunk: Any = base.trunk
    if hypothesis.count("{}") != 1:
        raise SpecError(
            f"`hypothesis` must hold `{{}}` once, where the label's words go; it is {hypothesis!r}. Write "
            f"such as {HYPOTHESIS!r}."
        )
    entails = _outcome(base, "entail")
    if entails is None:
        names = ", ".join(map(str, trunk.config.id2label.values()))
        raise NotSupported(
            f"`how: entail` needs a base tuned for entailment, with a class `entailment`; the classes of "
            f"`{base.name}` are {names}. Take an NLI model, or another `how`."
        )
    if says_by_decoder(trunk.config):
        raise NotSupported(
            f"`how: entail` reads both texts with one encoder; `{base.name}` answers by its decoder, as "
            "bart-large-mnli does. Take an NLI model of BERT's, RoBERTa's or DeBERTa's kind."
        )
    contradicts = _outcome(base, "contra")
    other = contradicts if contradicts is not None else next(i for i in trunk.config.id2label if i != entails)
    before, _ = frame(base.tokenizer)
    queries = tuple(Query(before, *_after(base, hypothesis.replace("{}", text))) for text in called.values())

    def head(_: str) -> nn.Module:
        usual = "last" if base.kind == "decoder" else "cls"
        pooling = "mean" if getattr(trunk.config, "classifier_pooling", "cls") == "mean" else usual
        own = own_head(base, "entail", weights=weights)
        return EntailHead(
            own, len(called), entails=entails, contradicts=other, pooling=pooling, multi_label=multi_label
        )

    return Asked("entail", queries, head, about)


def _after(base: Base, second: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    after, n_second = pair_after(base.tokenizer, second)
    return after, (), n_second


Answers = tuple[tuple[tuple[tuple[int, int], ...], ...], ...]


def _gaps(
    base: Base, templates: Sequence[str], called: Mapping[str, str], how: str
) -> tuple[tuple[Query, ...], Answers]:
    """Queries, and for every template and label the (site, token) pairs of its words."""
    if how == "mask" and base.tokenizer.mask_token_id is None:
        raise NotSupported(
            f"`how: mask` needs a base with a mask token; the tokenizer of `{base.name}` has none. Try `how: "
            f"causal` or `nearest`."
        )
    queries: dict[Query, int] = {}  # to its first site
    answers = []
    for template in templates:
        parts = _taken_apart(template, how)
        row = []
        for tokens in _tokens_of(base.tokenizer, called, blank=parts.blank).values():
            query = parts.masked(base.tokenizer, len(tokens)) if how == "mask" else parts.open(
                base.tokenizer, tokens[:-1]
            )  # fmt: skip
            first = queries.setdefault(query, sum(len(q.sites) for q in queries))
            row.append(tuple((first + j, token) for j, token in enumerate(tokens)))
        answers.append(tuple(row))
    return tuple(queries), tuple(answers)


def _tokens_of(tokenizer: Any, called: Mapping[str, str], *, blank: bool) -> dict[str, tuple[int, ...]]:
    """Each label's words as tokens, as they stand in the gap.

    Raises:
        SpecError: words that the tokenizer does not know, or two labels with the same.
    """
    found = {label: words(tokenizer, f" {text}" if blank else text) for label, text in called.items()}
    for label, tokens in found.items():
        if not tokens or all(token == tokenizer.unk_token_id for token in tokens):
            raise SpecError(
                f"The label `{label}` is asked for as {called[label]!r}, and the base's tokenizer knows none "
                f"of it. Give it other words: `words: {{{label}: …}}`."
            )
    twice = next((tokens for tokens, n in Counter(found.values()).items() if n > 1), None)
    if twice:
        same = [label for label, tokens in found.items() if tokens == twice]
        raise SpecError(
            f"The labels `{same[0]}` and `{same[1]}` are asked for by the same words ({called[same[0]]!r}), "
            f"so they could not be told apart. Give one of them others: `words: {{{same[1]}: …}}`."
        )
    return found


@dataclass(frozen=True)
class _Template:
    """A template taken apart: what stands before, between and behind its two slots."""

    first: str
    between: str
    last: str
    text_first: bool
    blank: bool  # before the gap
    lead: str  # before the text

    def masked(self, tokenizer: Any, n_masks: int) -> Query:
        """With this many masks in the gap, which are the sites."""
        begin, end = frame(tokenizer)
        first, between, last = (words(tokenizer, part) for part in (self.first, self.between, self.last))
        gap = (int(tokenizer.mask_token_id),) * n_masks
        if self.text_first:
            behind = len(last) + len(end)
            sites = tuple(range(-behind - n_masks, -behind))
            return Query((*begin, *first), (*between, *gap, *last, *end), sites, lead=self.lead)
        ahead = len(begin) + len(first)
        sites = tuple(range(ahead, ahead + n_masks))
        return Query((*begin, *first, *gap, *between), (*last, *end), sites, lead=self.lead)

    def open(self, tokenizer: Any, said: tuple[int, ...]) -> Query:
        """Ending with the label tokens said so far; sites are the states that foretell each token."""
        begin, _ = frame(tokenizer)
        first, between = words(tokenizer, self.first), words(tokenizer, self.between)
        sites = tuple(range(-len(said) - 1, 0))
        return Query((*begin, *first), (*between, *said), sites, lead=self.lead)


def _taken_apart(template: str, how: str) -> _Template:
    if template.count("{text}") != 1 or template.count("{mask}") != 1:
        raise SpecError(
            f"A template must hold `{{text}}` and `{{mask}}` once each; it is {template!r}. Write such as "
            f"{TEMPLATES[how][0]!r}."
        )
    text_first = template.index("{text}") < template.index("{mask}")
    if how == "causal" and not (text_first and template.rstrip().endswith("{mask}")):
        raise SpecError(
            f"A template for a causal base must end with `{{mask}}`, as it reads no further than that; it is "
            f"{template!r}. Write such as {TEMPLATES[how][0]!r}."
        )
    first, rest = template.split("{text}" if text_first else "{mask}")
    between, last = rest.split("{mask}" if text_first else "{text}")
    blanks = first.endswith(" "), between.endswith(" ")
    blank, lead = blanks[text_first], " " if blanks[not text_first] else ""
    first, between = (part[:-1] if cut else part for part, cut in zip((first, between), blanks, strict=True))
    return _Template(first, between, last.rstrip(), text_first, blank, lead)
