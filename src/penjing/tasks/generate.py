"""Say something of a source: any text to any text. `translate` and `summarize` are this with other scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from penjing import saying
from penjing.baselines import said as baselines
from penjing.data import taught
from penjing.data.aligned import asked_sources, read_aligned
from penjing.errors import NotSupported, SpecError
from penjing.models.answering import part_of_both
from penjing.models.decoding import Decoding
from penjing.models.forms import Form, Rule, form_of, rule_of
from penjing.models.generate import Prompts, Said, prompts_of
from penjing.models.generate import generate as generated
from penjing.models.language import asked, word_loss
from penjing.models.languages import set_languages
from penjing.models.load import Base
from penjing.models.word_head import word_head
from penjing.records import Batch, Part, Rows, Scores
from penjing.task import Each, Fitted, Task

# What `train` says where the spec says nothing.
TRAIN = {"lr": 5e-4, "schedule": "inverse_sqrt", "warmup": 0.1}


@dataclass(frozen=True)
class Answer:
    """What was said of a row, and where the wanted answer is known, its summed loss and tokens."""

    text: str
    ended: bool
    loss: float = 0.0
    tokens: int = 0


def generate(
    *,
    prefix: str = "",
    behind: str = "\n",
    longest: int = 128,
    beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat: int = 0,
    repetition_penalty: float = 1.0,
    form: dict[str, Any] | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Task:
    """Say a text of a source, learned from pairs of them.

    prefix: what stands before each source, such as T5's `summarize: `. behind: what stands between source and
    answer where one decoder reads both. longest: tokens of an answer. beams, length_penalty, no_repeat,
    repetition_penalty: as in generation (docs/generate.md), whenever an answer is found. form: the form that
    answers have: `{schema: …}`, `{regex: …}` or `{choices: […]}` (docs/forms.md).
    source_language, target_language: of a base that knows several (mBART, NLLB, M2M100), its codes, such as
    `en_XX` or `eng_Latn`.
    """
    how = decoding_of(longest, beams, length_penalty, no_repeat, repetition_penalty)
    languages = (source_language, target_language)
    return said_task(
        "generate", "rouge_l", prefix, behind, how, baseline="nearest", languages=languages, form=form
    )


def decoding_of(
    longest: int, beams: int, length_penalty: float, no_repeat: int, repetition_penalty: float
) -> Decoding:
    """How answers are found.

    Raises:
        SpecError: settings without sense.
    """
    if longest < 2:
        raise SpecError(f"`longest` must be at least 2 tokens of an answer; it is {longest}. 128 is usual.")
    return Decoding(
        max_new=longest,
        beams=beams,
        length_penalty=length_penalty,
        no_repeat=no_repeat,
        repetition_penalty=repetition_penalty,
    )


def said_task(
    name: str,
    best: str,
    prefix: str,
    behind: str,
    how: Decoding,
    *,
    baseline: Literal["nearest", "lead"],
    languages: tuple[str | None, str | None],
    form: dict[str, Any] | None = None,
) -> Task:
    """A task whose answers are texts, of a form if one is given; `best` is the score that picks the best.
    languages: of sources and answers, as codes of the base's tokenizer; None where it marks none."""
    shape = None if form is None else form_of(form)
    if best == "bleu":
        saying.sacrebleu()

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
        between = behind if base.kind == "decoder" else ""
        sources = [f"{prefix}{source}" for source, _ in rows.items or ()]
        wanted = [target or "" for _, target in rows.items or ()] if labelled else None
        if base.kind == "decoder" and max_length < how.max_new + 2:
            raise SpecError(
                f"`{name}.longest` is {how.max_new} tokens of an answer, and `data.max_length` {max_length}, "
                "for source and answer in one row. Raise the latter, or lower the former."
            )
        return part_of_both(base, rows, sources, [between] * len(rows), wanted, max_length, how.max_new)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.kind == "encoder":
            raise NotSupported(
                f"`{name}` needs a base that says words: an encoder-decoder (T5, BART, Marian) or a decoder "
                f"(GPT-2, Llama); `{base.name}` is an encoder."
            )
        both = base.kind == "encoder-decoder"
        head, note = word_head(base, "answer" if both else "causal", weights=weights)
        set_languages(base, head, name, *languages)

        def answering(shape: Form | None) -> dict[str, Any]:
            rule = None if shape is None else rule_of(base.tokenizer, shape, _stop(base))
            return {
                "infer": partial(_infer, base, how, rule),
                "answers": partial(_answers, rule),
                "prompts": partial(_prompts, base, how, rule),
            }

        bound = replace(task, head=lambda *shape: head, notes=(note,) if note else (), **answering(shape))
        return replace(bound, formed=lambda given: replace(bound, **answering(form_of(given))))

    def score(
        found: list[Answer], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        return _scores(found, targets, best, seed)

    def difference(
        ours: list[Answer],
        theirs: list[Answer],
        targets: np.ndarray,
        chosen: Any,
        their_chosen: Any,
        seed: int,
    ) -> tuple[float, tuple[float, float]]:
        rows, value = _judged([one.text for one in ours], [*targets], best)
        others, _ = _judged([one.text for one in theirs], [*targets], best)
        mean = float(value(rows.sum(0)) - value(others.sum(0)))
        return mean, saying.interval(rows, value, seed, others)

    def cheap(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], list[Answer]]:
        sources = [source for source, _ in rows.items or ()]
        if baseline == "nearest":
            says, note = baselines.nearest(sources, [*targets], seed)
        else:
            says, note = baselines.lead(sources, [*targets])
        return Fitted(
            lambda rows: [Answer(text, True) for text in says([s for s, _ in rows.items or ()])], (note,)
        )

    task = Task(
        name=name,
        head=_unbound,
        loss=word_loss,
        score=score,
        best=best,
        rows=read_aligned,
        ask=asked_sources,
        encode=_targets,
        part=part,
        learned=None,
        say=lambda answer: " ".join(answer["text"].split()),
        mistakes=_mistakes,
        difference=difference,
        baseline=cheap,
        bind=bind,
        teach=taught.sources(),
        whole=True,
    )
    return task


def _unbound(*shape: Any) -> nn.Module:
    raise AssertionError("the head of a language model comes with its base")


def _targets(rows: Rows, names: list[str]) -> np.ndarray:
    found = np.empty(len(rows), dtype=object)
    found[:] = [target or "" for _, target in rows.items or ()]
    return found


def _stop(base: Base) -> list[int]:
    """The ids that end an answer."""
    end = base.tokenizer.eos_token_id
    return [] if end is None else [int(end)]


def _prompts(base: Base, how: Decoding, rule: Rule | None, part: Part) -> Prompts:
    def found(said: Said) -> Answer:
        return Answer(_text(base, rule, said.ids), said.ended)

    stop = _stop(base)
    return prompts_of(part, base.tokenizer, how, stop=stop, limit=base.limit, found=found, rule=rule)


def _infer(
    base: Base, how: Decoding, rule: Rule | None, model: nn.Module, each: Each, part: Part
) -> list[Answer]:
    """What the model says of each row, and how well it says what was wanted."""
    inner: Any = model
    stop, allow = _stop(base), rule.allow if rule else None

    def compute(batch: Batch) -> Sequence[Answer]:
        rows = [row.tolist() for row in batch.ids.cpu().split(batch.lengths.tolist())]
        if batch.marks is not None:
            rows = [row[: int(n)] for row, n in zip(rows, batch.marks[:, 0].tolist(), strict=True)]
        found = generated(inner, rows, how, stop=stop, limit=base.limit, allow=allow, tokens=1 << 20)
        known = _losses(inner, batch)
        return [
            Answer(_text(base, rule, best[0].ids), best[0].ended, *judged)
            for best, judged in zip(found, known, strict=True)
        ]

    return each(part, compute)


def _text(base: Base, rule: Rule | None, ids: Sequence[int]) -> str:
    return rule.text(ids) if rule else base.tokenizer.decode([*ids], skip_special_tokens=True).strip()


def _losses(model: Any, batch: Batch) -> list[tuple[float, int]]:
    """Summed loss and tokens of each row's wanted answer."""
    if batch.answer is None and (batch.labels is None or batch.labels.ndim != 1):
        return [(0.0, 0)] * len(batch.rows)
    labels, lengths = asked(batch)
    losses, _ = model.head.judged(model.states(batch), labels)
    places, sizes = labels.cpu().split(lengths.tolist()), []
    for own in places:
        sizes.append(int((own != -100).sum()))
    return [(float(one.sum()), n) for one, n in zip(losses.float().cpu().split(sizes), sizes, strict=True)]


def _judged(
    said: list[str], wanted: list[str], best: str
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Per row what is summed, and the score that sums make."""
    if best == "bleu":
        return saying.bleu_counts(said, wanted), saying.bleu_of
    place = saying.ROUGES.index(best)
    values = [saying.rouge(a, b)[place] for a, b in zip(said, wanted, strict=True)]
    return np.stack([values, np.ones(len(values))], 1), saying.mean_of


def _scores(found: list[Answer], targets: np.ndarray, best: str, seed: int) -> Scores:
    said, wanted = [one.text for one in found], [str(one) for one in targets]
    rows, value = _judged(said, wanted, best)
    rouges = np.array([saying.rouge(a, b) for a, b in zip(said, wanted, strict=True)])
    values = {best: float(value(rows.sum(0)))}
    if best == "bleu":
        values["chrf"] = saying.chrf(said, wanted)
    values |= {name: float(x) for name, x in zip(saying.ROUGES, rouges.mean(0), strict=True)}
    tokens = sum(one.tokens for one in found)
    if tokens:
        values["loss"] = sum(one.loss for one in found) / tokens
    values |= saying.manner(said, wanted)
    values["unended"] = sum(not one.ended for one in found) / max(1, len(found))
    return Scores(values, {best: saying.interval(rows, value, seed)})


def _answers(
    rule: Rule | None, found: list[Answer], names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    return [{"text": one.text, "ended": one.ended, **(rule.more(one.text) if rule else {})} for one in found]


def _mistakes(
    found: list[Answer], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows whose answer has a ROUGE-L below a half; `error` is what it lacks to 1."""
    wrong = []
    for i, (one, wanted) in enumerate(zip(found, targets, strict=True)):
        near = saying.rouge(one.text, wanted)[2]
        if near < 0.5:
            source = (rows.items or [])[i][0]
            about = {"where": rows.where(i), "text": source[:600], "given": wanted, "predicted": one.text}
            wrong.append({**about, "error": 1 - near})
    return wrong
