"""Code: a decoder learns files, completions, and to fill in the middle; judged by likeness and by unit tests.

Whole files are cut into pieces; at each step a share of them, drawn from (seed, step), is written as a hole
and what was in it. Of problems with a prompt only the completion is learned. What is judged of a file is one
line of it, given what stands before (and behind).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import nn

from penjing.baselines.code import what_followed
from penjing.coding import Answer, Judge, mistakes
from penjing.data.code import Problem, asked_code, read_code
from penjing.errors import NotSupported, SpecError
from penjing.models.completing import Hole, hole_of, learned_part, prompts_part
from penjing.models.decoding import Decoding
from penjing.models.filling import Filling, filling_of
from penjing.models.generate import Prompts, Said, generate, prompts_of
from penjing.models.language import judged, word_loss
from penjing.models.load import Base
from penjing.models.word_head import word_head
from penjing.records import Part, Rows, Tokens
from penjing.task import Each, Task

# What `train` says where the spec says nothing.
TRAIN = {"batch": 16, "schedule": "cosine", "warmup": 0.05, "betas": [0.9, 0.95], "weight_decay": 0.1}
STOPS = ("\nclass ", "\ndef ", "\n@", "\nif __name__", "\nprint(", "\nassert ", "\n#")


def code(
    *,
    fim: float = 0.5,
    spm: float = 0.5,
    judge: Literal["similarity", "exact", "pass_at_1"] = "similarity",
    longest: int = 128,
    samples: int = 1,
    temperature: float = 0.8,
    top_p: float = 0.95,
    stops: list[str] | None = None,
    run: bool = False,
    seconds: float = 5.0,
    memory_mib: int = 1024,
) -> Task:
    """Complete code, and fill in the middle.

    fim: the share of whole files' pieces that are learned with a hole. spm: of those, the share with the
    suffix first. judge: the score that picks the best. longest: tokens of an answer. samples: programs drawn
    for each problem with tests; 1 is the likeliest. temperature: of what is drawn. top_p: of what is drawn.
    stops: texts before which an answer to a problem ends; None is another definition at the left edge. run:
    run the tests of problems in a sandbox (docs/code.md). seconds: of processor time, for each program.
    memory_mib: for each program.
    """
    for name, share in (("fim", fim), ("spm", spm)):
        if not 0 <= share <= 1:
            raise SpecError(f"`code.{name}` is a share from 0 to 1; it is {share}. Give such as 0.5.")
    if samples < 1 or seconds <= 0 or memory_mib < 64:
        raise SpecError(
            f"`code.samples` must be at least 1, `seconds` above 0 and `memory_mib` at least 64; they are "
            f"{samples}, {seconds:g} and {memory_mib}. Raise what is too small."
        )
    if (judge == "pass_at_1" or samples > 1) and not run:
        raise SpecError(
            f"`code.judge` is {judge} and `code.samples` {samples}; both need the tests to be run, and `run` "
            "is false. Set `run: true`: the programs then run in a sandbox on this machine."
        )
    drawn: dict[str, Any] = (
        {"sample": True, "temperature": temperature, "top_p": top_p} if samples > 1 else {}
    )
    how = Decoding(max_new=longest, **drawn)
    ends = STOPS if stops is None else tuple(stops)
    judged_by = Judge(judge, run, seconds, memory_mib)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.kind != "decoder":
            raise NotSupported(
                f"`code` needs a base whose tokens see only those before them; `{base.name}` is an "
                f"{base.kind}. Take a GPT- or Llama-like one."
            )
        fill = filling_of(base.tokenizer)
        made, note = word_head(base, "causal", weights=weights)
        notes = [note] if note else []
        if fim and not fill.own:
            notes.append(
                "the base has no tokens for holes; their names are written as text (`penjing tokenizer "
                "extend` adds tokens)"
            )

        def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
            if max_length < longest + fill.taken + 8:
                raise SpecError(
                    f"`code.longest` is {longest} tokens of an answer, and `data.max_length` {max_length}, "
                    "for prompt and answer in one row. Raise the latter, or lower the former."
                )
            if labelled:
                return replace(learned_part(fill, rows, max_length, longest), targets=_targets(rows, names))
            holes = [Hole(one.prompt, "", one.suffix) for one in _items(rows)]
            return prompts_part(fill, rows, holes, max_length - longest)

        def vary(part: Part, rows: np.ndarray, seed: int) -> Part:
            return _with_holes(fill, part, rows, seed, fim, spm)

        def infer(model: nn.Module, each: Each, part: Part) -> list[Answer]:
            return _infer(base, fill, how, samples, ends, fim, model, each, part)

        def prompts(part: Part) -> Prompts:
            words, stop = base.tokenizer, fill.last
            found = lambda said: Answer((_text(base, said, ()),), said.ended)  # noqa: E731
            return prompts_of(part, words, how, stop=stop, limit=base.limit, found=found)

        return replace(
            task,
            head=lambda *shape: made,
            part=part,
            vary=vary if fim else None,
            infer=infer,
            prompts=prompts,
            notes=tuple(notes),
        )

    task = Task(
        name="code",
        head=_unbound,
        loss=word_loss,
        score=judged_by.score,
        best=judge,
        rows=read_code,
        ask=asked_code,
        encode=_targets,
        answers=_answers,
        say=lambda answer: answer["text"].strip().replace("\n", "⏎"),
        mistakes=mistakes,
        difference=judged_by.difference,
        baseline=what_followed,
        untuned="own",
        bind=bind,
        speaks=True,
    )
    return task


def _unbound(*shape: Any) -> nn.Module:
    raise AssertionError("the head of a language model comes with its base")


def _items(rows: Rows) -> list[Problem]:
    assert rows.items is not None
    return rows.items


def _targets(rows: Rows, names: list[str]) -> np.ndarray:
    found = np.empty(len(rows), dtype=object)
    found[:] = _items(rows)
    return found


def _with_holes(fill: Filling, part: Part, rows: np.ndarray, seed: int, fim: float, spm: float) -> Part:
    """These sequences as they are learned from at one step: some pieces of whole files with a hole."""
    tokens, items = part.tokens, _items(part.rows)
    assert part.owners is not None
    assert part.marks is not None
    assert tokens.labels is not None
    ids, labels = [], []
    for row in rows.tolist():
        own = slice(int(tokens.starts[row]), int(tokens.starts[row + 1]))
        whole, wanted = np.asarray(tokens.ids[own]), tokens.labels[own]
        rng = np.random.default_rng([seed, row])
        start, stop, room = part.marks[row].tolist()
        if stop > start and rng.random() < fim:
            text = (items[int(part.owners[row])].completion or "")[start:stop]
            whole = np.array(fill.written(text, rng, spm=spm, room=room), np.int64)
            wanted = np.append(whole[1:], -100)
        ids.append(whole)
        labels.append(wanted)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    laid = Tokens(np.concatenate(ids), starts, labels=np.concatenate(labels).astype(np.int64))
    return replace(part, tokens=laid, owners=part.owners[rows], marks=part.marks[rows])


def _infer(
    base: Base,
    fill: Filling,
    how: Decoding,
    samples: int,
    ends: tuple[str, ...],
    fim: float,
    model: nn.Module,
    each: Each,
    part: Part,
) -> list[Answer]:
    """What is said to each row, and how well the model says what was wanted."""
    inner: Any = model
    stop, known = fill.last, np.zeros((len(part.rows), 3))
    if part.tokens.labels is None:
        asked = part
        cuts: list[tuple[str, ...]] = [()] * len(part.rows)
    else:
        found = judged(model, each, part)
        assert part.owners is not None
        np.add.at(known, part.owners, found)
        holes = [hole_of(one, fim > 0) for i, one in enumerate(_items(part.rows))]
        room = int(part.marks[:, 2].max()) - how.max_new if part.marks is not None else base.limit
        asked = prompts_part(fill, part.rows, holes, room)
        cuts = [("\n",) if one.whole else ends for one in _items(part.rows)]
    several = [samples if one.tests and part.tokens.labels is not None else 1 for one in _items(part.rows)]

    def texts(batch: Any) -> list[tuple[tuple[str, ...], bool]]:
        rows = [row.tolist() for row in batch.ids.cpu().split(batch.lengths.tolist())]
        said: list[tuple[tuple[str, ...], bool]] = []
        greedy = generate(inner, rows, replace(how, sample=False, temperature=1.0, top_p=1.0), stop=stop,
                          limit=base.limit, tokens=1 << 20)  # fmt: skip
        for i, row, best in zip(batch.rows, rows, greedy, strict=True):
            many = [best[0]]
            if several[i] > 1:  # each row's draws are its own, whoever shares the batch
                own = replace(how, seed=int(np.random.default_rng(row).integers(1 << 31)))
                many = [
                    one for (one,) in generate(inner, [row] * several[i], own, stop=stop, limit=base.limit)
                ]
            said.append((tuple(_text(base, one, cuts[i]) for one in many), many[0].ended))
        return said

    return [
        Answer(said, ended, float(loss), int(tokens))
        for (said, ended), (loss, tokens, _) in zip(each(asked, texts), known, strict=True)
    ]


def _text(base: Base, said: Said, cuts: Sequence[str]) -> str:
    text = str(base.tokenizer.decode([*said.ids], skip_special_tokens=True))
    places = [place for place in (text.find(cut, 1 if cut == "\n" else 0) for cut in cuts) if place >= 0]
    return text[: min(places)] if places else text


def _answers(found: list[Answer], names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"text": one.texts[0], "ended": one.ended} for one in found]
