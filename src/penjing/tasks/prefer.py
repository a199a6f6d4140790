"""Preferences: a model learns which of two replies is the better (DPO, IPO, ORPO).

The reference is the base itself. It does not change, so what it says of each row is computed once, before the
first step, and kept beside the row: a step costs no pass of the reference, whatever the method.

Legend: S pairs, T tokens.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from penjing.data import conversations, preferences
from penjing.data.batches import cut, packed
from penjing.data.chat_templates import Template, template_of
from penjing.data.preferences import Preference
from penjing.data.tokenize import in_parts
from penjing.errors import DataError, NotSupported, PenjingError, SpecError
from penjing.models.decoding import Decoding
from penjing.models.generate import prompts_of
from penjing.models.load import Base
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.models.preferring import dpo, ipo, margins, orpo
from penjing.models.word_head import word_head
from penjing.plural import counted
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Each, Task
from penjing.tasks.chat import answer_of, laid, replied, unbound

TRAIN = {"batch": 16, "schedule": "cosine", "warmup": 0.1, "lr": 5e-6}
DRAWS = 1000


def prefer(
    *,
    loss: Literal["dpo", "ipo", "orpo"] = "dpo",
    beta: float = 0.1,
    template: str = "auto",
    too_long: Literal["refuse", "rows"] = "refuse",
    repair: bool = False,
    reference: str | None = None,
    max_new: int = 256,
) -> Task:
    """Learn to prefer the better of two replies.

    loss: `dpo` (Rafailov et al. 2023), `ipo` (Azar et al. 2023), or `orpo` (Hong et al. 2024), which needs no
    reference and also learns to say the better reply. beta: how far from the reference; of `orpo`, the weight
    of the preference. template: as in `chat`. too_long: what does not fit is refused or left out. repair:
    leave pairs out that cannot be used (an empty reply, two equal ones). reference: the base to compare with;
    the run's own when not given. max_new: tokens of the replies that `predict` gives.
    """
    if not beta > 0:
        raise SpecError(f"`prefer.beta` must be above 0; it is {beta:g}. 0.1 is usual.")
    if loss == "orpo" and reference is not None:
        raise SpecError("`prefer.reference` is given; `loss: orpo` has no reference. Leave it out.")
    how = Decoding(max_new=max_new)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.kind != "decoder":
            raise NotSupported(
                f"`prefer` needs a base whose tokens see only those before them; `{base.name}` is an "
                f"{base.kind}. Take a GPT- or Llama-like one, best one tuned with `chat`."
            )
        if base.grown and loss != "orpo" and reference is None:
            raise NotSupported(
                f"`prefer` compares with the base; `{base.name}` begins from random weights, so there is "
                "none. Tune it with `chat` first, or take `loss: orpo`."
            )
        write = template_of(base.tokenizer, template)
        made, note = word_head(base, "causal", weights=weights)
        name = reference or (str(base.folder.absolute()) if base.folder == Path(base.name) else base.name)

        def head(*shape: Any) -> nn.Module:
            made.requires_grad_(base.trunk.get_input_embeddings().weight.requires_grad)  # type: ignore[operator]
            return made

        def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool) -> Part:
            if not labelled:
                return _asked(write, rows)
            found = _part(write, rows, max_length, too_long)
            if loss == "orpo" or next(base.trunk.parameters()).device.type == "meta":
                return found
            return replace(found, marks=_kept(_reference(name, base, found)))

        return replace(
            task,
            head=head,
            part=part,
            infer=lambda model, each, part: _infer(model, each, part, write, how, base.limit),
            answers=lambda found, names, chosen: [answer_of(write, one) for one in found],
            prompts=partial(
                prompts_of, tokenizer=base.tokenizer, how=how, stop=write.stops, limit=base.limit
            ),
            settled={} if loss == "orpo" else {"reference": name},
            notes=(note,) if note else (),
        )

    def of_pairs(policy: Tensor, lengths: Tensor, known: Tensor) -> Tensor:
        if loss == "orpo":
            return orpo(policy, lengths, beta)
        return dpo(policy, known, beta) if loss == "dpo" else ipo(policy, known, lengths, beta)

    def of_batch(model: nn.Module, batch: Batch) -> Loss:
        policy, lengths = _log_p(model, batch)
        known = torch.zeros_like(policy) if batch.marks is None else _numbers(batch.marks).to(policy)
        mean = of_pairs(policy, lengths, known).sum() / max(batch.n_targets, 1.0)
        gain = margins(policy.detach(), known)
        parts = {"preferred": float((gain > 0).float().mean()), "margin": float(gain.mean())}
        return Loss(mean, parts, outputs=policy)

    def score(
        found: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        policy, known, lengths = (torch.from_numpy(found[:, i : i + 2]) for i in (0, 2, 4))
        used = lengths[:, 0] > 0
        policy, known, lengths = policy[used], known[used], lengths[used]
        gain = (margins(policy, known) if loss != "orpo" else margins(policy / lengths, known)).numpy()
        table = np.stack([
            of_pairs(policy, lengths, known).numpy(), np.where(gain == 0, 0.5, gain > 0), gain,
            -(policy / lengths)[:, 0].numpy(),
        ], 1)  # fmt: skip
        means = table.mean(0)
        generator = np.random.default_rng(seed)
        drawn = np.stack(
            [table[generator.integers(len(table), size=len(table))].mean(0) for _ in range(DRAWS)]
        )
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        named = ("loss", "preference_accuracy", "margin", "chosen_loss")
        values = {name: float(value) for name, value in zip(named, means, strict=True)}
        return Scores(values, {name: (float(low[i]), float(high[i])) for i, name in enumerate(named)})

    task = Task(
        name="prefer",
        rows=lambda source, *, labelled=True, **reading: (
            preferences.read(source, repair=repair, **reading)
            if labelled
            else conversations.read(source, labelled=False, repair=repair, **reading)
        ),
        ask=conversations.asked,
        label_names=lambda rows: ["replies"],
        encode=lambda rows, names: np.zeros(len(rows), dtype=np.int64),
        bind=bind,
        learned=lambda part, sequence, names: ("", []),
        head=unbound,
        loss=of_batch,
        score=score,
        say=lambda one: " ".join(one["reply"].split()),
        untuned="own",
        speaks=True,
        best="loss",
        lower=True,
    )
    return task


def _asked(write: Template, rows: Rows) -> Part:
    items = rows.items or []
    asked = [one.asked if isinstance(one, Preference) else conversations.question_of(one) for one in items]
    prompts = [np.array(write.prompt(one), dtype=np.int64) for one in asked]
    return Part(rows, laid(prompts, None), np.zeros(len(rows), dtype=np.int64))


def _part(write: Template, rows: Rows, max_length: int, too_long: str) -> Part:
    """Pairs as two sequences each, the better first; labels are those of the last reply."""
    sequences: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    owners: list[int] = []
    for row, one in enumerate(rows.items or []):
        try:
            both = [write.write(whole) for whole in one.whole()]
        except PenjingError as error:
            raise type(error)(f"{rows.where(row)}: {error}") from error
        longest = max(len(each.ids) for each in both)
        if longest > max_length:
            if too_long == "refuse":
                raise DataError(
                    f"{rows.where(row)}: pairs of at most {max_length} tokens were wanted; this one has "
                    f"{longest:,}, and cutting a reply would change what is preferred. Raise "
                    "`data.max_length`, or leave such rows out with `task: {prefer: {too_long: rows}}`."
                )
            continue
        owners.append(row)
        given = len(write.prompt(one.asked))  # tags may hold what asks for a reply: that is not preferred
        for each in both:
            first, end = max(each.replies[-1][0], given), each.replies[-1][1]
            own = np.full(len(each.ids), -100, dtype=np.int64)
            own[first - 1 : end - 1] = each.ids[first:end]
            sequences.append(each.ids)
            labels.append(own)
    if not owners:
        raise DataError(
            f"Pairs of at most {max_length} tokens were wanted; none of {len(rows):,} rows is. Raise "
            "`data.max_length`, or take a base that reads more."
        )
    left = len(rows) - len(owners)
    if left:
        note = f"{counted(left, 'pair')} longer than {max_length} tokens left out"
        rows = replace(rows, notes=(*rows.notes, note))
    tokens = in_parts(laid(sequences, labels), 2)
    weights = np.ones(len(owners), dtype=np.float32)  # a pair counts once, however long its replies are
    targets = np.zeros(len(rows), dtype=np.int64)
    return Part(rows, tokens, targets, weights, owners=np.array(owners, dtype=np.int64))


def _log_p(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """(S, 2) log-probabilities of both replies of each pair, and (S, 2) how many tokens they have."""
    assert batch.labels is not None
    each = model.head.each_loss(model.states(batch), batch.labels)
    owner = torch.repeat_interleave(torch.arange(len(batch.lengths)), batch.lengths).to(each.device)
    owner = owner[batch.labels != -100]
    sums = each.new_zeros(len(batch.lengths)).index_add(0, owner, -each)
    sizes = each.new_zeros(len(batch.lengths)).index_add(0, owner, torch.ones_like(each))
    return sums.view(-1, 2), sizes.view(-1, 2)


def _reference(name: str, base: Base, part: Part) -> np.ndarray:
    """(n, 2) what the base itself, loaded apart, says of both replies of each pair."""
    device = next(base.trunk.parameters()).device
    own = load_base(name, device=device)
    model = Model(own.trunk, word_head(own, "causal", weights=True)[0], own.way).eval()
    found = np.zeros((len(part), 2), dtype=np.float64)
    with torch.inference_mode():
        for rows in cut(np.arange(len(part)), part.tokens.lengths, tokens=8192):
            found[rows] = _log_p(model, packed(part, rows).to(device))[0].double().cpu().numpy()
    return found


def _kept(numbers: np.ndarray) -> np.ndarray:
    """Numbers as the whole ones that marks are, bit by bit."""
    return np.ascontiguousarray(numbers, dtype=np.float64).view(np.int64)


def _numbers(marks: Tensor) -> Tensor:
    return marks.contiguous().view(torch.float64)


def _infer(model: Any, each: Each, part: Part, write: Template, how: Decoding, limit: int) -> Any:
    """(n, 6) of each row: log-probabilities by model and reference, and tokens, of both replies; 0 of a row
    left out. Of questions: what is said to each."""
    if part.tokens.labels is None:
        return replied(model, part, write, how, limit)

    def rows(batch: Batch) -> Tensor:
        policy, lengths = _log_p(model, batch)
        known = torch.zeros_like(policy) if batch.marks is None else _numbers(batch.marks).to(policy)
        return torch.cat([policy, known, lengths], 1).double().cpu()

    found = np.zeros((len(part.rows), 6), dtype=np.float64)
    assert part.owners is not None
    found[part.owners] = torch.stack([*each(part, rows)]).numpy()
    return found
