"""Instructions and dialogues: a language model learns the replies of conversations, and nothing else of them.

Every conversation is a sequence of its own, packed beside others without seeing them. Before the first step
the contract is checked: every reply is learned with the token that stops it, no reply is cut, no row is
without something to learn, and questions are learned only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from torch import nn

from penjing import saying
from penjing.data import conversations, taught
from penjing.data.chat_templates import Template, Written, fitted, template_of
from penjing.data.messages import Conversation
from penjing.data.named_templates import NAMED
from penjing.errors import DataError, NotSupported, PenjingError, SpecError, nearest
from penjing.measures import language_scores
from penjing.models.decoding import Decoding
from penjing.models.forms import Form, Rule, form_of, rule_of
from penjing.models.generate import Said, generate, prompts_of
from penjing.models.language import judged, word_loss
from penjing.models.load import Base
from penjing.models.word_head import word_head
from penjing.plural import counted
from penjing.records import Part, Rows, Scores, Tokens
from penjing.task import Each, Task

TRAIN = {"batch": 16, "schedule": "cosine", "warmup": 0.05}


def chat(
    *,
    template: str = "auto",
    learn: Literal["replies", "last", "all"] = "replies",
    too_long: Literal["turns", "rows", "refuse"] = "turns",
    repair: bool = False,
    max_new: int = 256,
    sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    form: dict[str, Any] | None = None,
) -> Task:
    """Learn to reply as the conversations do.

    template: how conversations are written: the tokenizer's own (`auto`), or `chatml`, `llama`, `alpaca`.
    learn: every reply, the last of each conversation, or all that is said. too_long: a conversation that does
    not fit loses its oldest turns (`turns`), is left out (`rows`) or refused; no reply is ever cut. repair:
    make one message of what one side says in a row, and leave conversations out that cannot be used (an empty
    reply, one side only, roles out of order). max_new,
    sample, temperature, top_p: of the replies that `predict` gives, as in `Decoding`. form: what those look
    like: `{schema: …}`, `{regex: …}` or `{choices: […]}` (docs/forms.md).
    """
    shape = None if form is None else form_of(form)
    how = Decoding(max_new=max_new, sample=sample, temperature=temperature, top_p=top_p)
    if template != "auto" and template not in NAMED:
        raise SpecError(
            f"`chat.template` is {template!r}; known are auto, {', '.join(NAMED)}.{nearest(template, NAMED)} "
            "Give one of these."
        )

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.kind != "decoder":
            raise NotSupported(
                f"`chat` needs a base whose tokens see only those before them; `{base.name}` is an "
                f"{base.kind}. Take a GPT- or Llama-like one."
            )
        write = template_of(base.tokenizer, template)
        made, note = word_head(base, "causal", weights=weights)

        def head(*shape: Any) -> nn.Module:
            # A word projection of its own trains where the trunk's words do: adapters leave both alone.
            made.requires_grad_(base.trunk.get_input_embeddings().weight.requires_grad)  # type: ignore[operator]
            config = getattr(made.own.model, "generation_config", None)
            if config is not None:
                config.eos_token_id = sorted(write.stops)  # so that what is exported stops, too
            return made

        def answering(shape: Form | None) -> dict[str, Any]:
            rule = None if shape is None else rule_of(base.tokenizer, shape, sorted(write.stops))
            return {
                "infer": lambda model, each, part: _infer(model, each, part, write, how, base.limit, rule),
                "answers": lambda found, names, chosen: [answer_of(write, one, rule) for one in found],
                "prompts": lambda part: prompts_of(
                    part, base.tokenizer, how, stop=write.stops, limit=base.limit, rule=rule
                ),
            }

        bound = replace(
            task,
            head=head,
            part=lambda base, rows, names, max_length, *, labelled: _part(
                write, rows, max_length, learn, too_long, labelled=labelled
            ),
            notes=(note,) if note else (),
            **answering(shape),
        )
        return replace(bound, formed=lambda given: replace(bound, **answering(form_of(given))))

    task = Task(
        name="chat",
        rows=lambda source, *, labelled=True, **reading: conversations.read(
            source, labelled=labelled, repair=repair, **reading
        ),
        ask=conversations.asked,
        label_names=lambda rows: ["replies"],
        encode=_encode,
        bind=bind,
        learned=lambda part, sequence, names: ("", []),
        head=unbound,
        loss=word_loss,
        score=_score,
        say=lambda one: " ".join(one["reply"].split()),
        reference=_reference,
        difference=_difference,
        teach=taught.talks(),
        untuned="own",
        speaks=True,
        best="loss",
        lower=True,
    )
    return task


def unbound(*shape: Any) -> nn.Module:
    """The head of a task that is not bound to a base yet."""
    raise AssertionError("the head of a chat model comes with its base")


def items_of(rows: Rows) -> list[Conversation]:
    """The conversations of rows."""
    assert rows.items is not None
    return rows.items


def _encode(rows: Rows, names: list[str]) -> np.ndarray:
    """(n, 4) as `language_scores` wants: source, document, whether it ends it, bytes (not counted here)."""
    targets = np.zeros((len(rows), 4), dtype=np.int64)
    targets[:, 1] = np.arange(len(rows))
    targets[:, 2] = 1
    return targets


def _part(write: Template, rows: Rows, max_length: int, learn: str, too_long: str, *, labelled: bool) -> Part:
    """Conversations as sequences, and each token's label the next token, where that one is learned.

    Raises:
        DataError: the contract is broken; the text names the row.
    """
    if not labelled:
        questions = [conversations.question_of(one) for one in items_of(rows)]
        prompts = [np.array(write.prompt(one), dtype=np.int64) for one in questions]
        return Part(rows, laid(prompts, None), np.zeros(len(rows), dtype=np.int64))
    sequences: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    owners: list[int] = []
    shortened = dropped = messages = 0
    for row, one in enumerate(items_of(rows)):
        try:
            found, lost = fitted(write, one, max_length)
        except PenjingError as error:
            raise type(error)(f"{rows.where(row)}: {error}") from error
        if (found is None or lost) and (too_long == "refuse" or (found is None and too_long == "turns")):
            raise _too_long(write, rows, row, max_length, too_long)
        if found is None or (lost and too_long == "rows"):
            dropped += 1
            continue
        shortened, messages = shortened + bool(lost), messages + lost
        sequences.append(found.ids)
        labels.append(_labels(found, learn))
        owners.append(row)
    if not sequences:
        raise DataError(
            f"Conversations of at most {max_length} tokens were wanted; none of {len(rows):,} rows is. Raise "
            "`data.max_length`, or take a base that reads more."
        )
    notes = []
    if shortened:
        notes.append(
            f"{counted(shortened, 'conversation')} longer than {max_length} tokens: {messages:,} of their "
            "oldest messages are left out, no reply is cut"
        )
    if dropped:
        notes.append(f"{counted(dropped, 'conversation')} longer than {max_length} tokens left out")
    thought = sum(message.thought != "" for one in items_of(rows) for message in one.messages)
    if thought and not write.thinks:
        notes.append(
            f"{counted(thought, 'reply', 'replies')} with `reasoning_content`, which the template "
            f"`{write.name}` does not write: it is not learned"
        )
    rows = replace(rows, notes=(*rows.notes, *notes))
    return Part(rows, laid(sequences, labels), _encode(rows, []), owners=np.array(owners, dtype=np.int64))


def _labels(found: Written, learn: str) -> np.ndarray:
    """(T,) the next token where it is learned, else -100."""
    learned = found.learned
    if learn == "all":
        learned = np.ones_like(learned)
        learned[: found.replies[0][0]][:1] = False  # nothing comes before the first token
    elif learn == "last":
        learned = np.zeros_like(learned)
    for first, end in found.replies[-1:] if learn == "last" else found.replies:
        learned[first:end] = found.learned[first:end]  # but for replies of weight 0
    labels = np.full(len(found.ids), -100, dtype=np.int64)
    labels[:-1] = np.where(learned[1:], found.ids[1:], -100)
    return labels


def laid(sequences: Sequence[np.ndarray], labels: Sequence[np.ndarray] | None) -> Tokens:
    """Sequences end to end."""
    starts = np.concatenate([[0], np.cumsum([len(one) for one in sequences])]).astype(np.int64)
    ids = np.concatenate([*sequences, np.zeros(0, np.int64)]).astype(np.int32)
    return Tokens(ids, starts, labels=None if labels is None else np.concatenate(labels))


def _too_long(write: Template, rows: Rows, row: int, max_length: int, too_long: str) -> DataError:
    sizes = [len(write.write(one).ids) for one in items_of(rows)]
    n = sum(size > max_length for size in sizes)
    what = "its last turn alone does not fit" if too_long == "turns" else "`chat.too_long` is `refuse`"
    return DataError(
        f"{rows.where(row)}: a conversation of at most {max_length} tokens was wanted; this one has "
        f"{sizes[row]:,}, and {what}, so a reply would be cut. {n:,} of {len(rows):,} are longer. Raise "
        "`data.max_length`, or leave such rows out with `task: {chat: {too_long: rows}}`."
    )


def _infer(
    model: Any, each: Each, part: Part, write: Template, how: Decoding, limit: int, rule: Rule | None
) -> Any:
    """(n, 3) of each row: summed loss, tokens asked for, those answered rightly; 0 of a row left out. Of
    questions: what is said to each."""
    if part.tokens.labels is None:
        return replied(model, part, write, how, limit, rule)
    found = judged(model, each, part)
    whole = np.zeros((len(part.rows), 3), dtype=np.float64)
    assert part.owners is not None
    whole[part.owners] = found
    return whole


def _score(
    found: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
) -> Scores:
    scores = language_scores(found, targets, names, chosen, seed)
    return Scores(scores.values, scores.intervals)


def _difference(
    ours: np.ndarray, theirs: np.ndarray, targets: Any, chosen: Any, their_chosen: Any, seed: int
) -> tuple[float, tuple[float, float]]:
    """Of the loss a token."""
    value = lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1e-9)  # noqa: E731
    mean = float(value(ours.sum(0)) - value(theirs.sum(0)))
    return mean, saying.interval(ours, value, seed, theirs)


def replied(
    model: Any, part: Part, write: Template, how: Decoding, limit: int, rule: Rule | None = None
) -> list[Said]:
    """What is said to each prompt of a part, in a form where there is a rule."""
    prompts = [part.tokens.ids[a:b].tolist() for a, b in pairwise(part.tokens.starts)]
    allow = rule.allow if rule else None
    found = generate(model, prompts, how, stop=sorted(write.stops), limit=limit, allow=allow)
    return [best[0] for best in found]


def answer_of(write: Template, one: Said, rule: Rule | None = None) -> dict[str, Any]:
    """A reply, whether it came to its end, and how sure the model was: the mean probability of its tokens
    (geometric), in 0..1; of a JSON schema its `value`, too."""
    reply = rule.text(one.ids) if rule else write.tokenizer.decode(list(one.ids), skip_special_tokens=True)
    return {
        **(rule.more(reply) if rule else {}),
        "reply": reply,
        "ended": one.ended,
        "confidence": float(np.exp(one.score / (len(one.ids) + one.ended))),
    }


def _reference(part: Part, names: list[str]) -> dict[str, Any]:
    """What a watch for drift compares with: how much of a conversation is learned."""
    assert part.tokens.labels is not None
    learned = int((part.tokens.labels != -100).sum())
    return {
        "learned_share": learned / max(1, len(part.tokens.ids)),
        "learned_a_row": learned / max(1, len(part)),
    }
