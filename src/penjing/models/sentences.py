"""What the objectives on two parts of a text share: the head over a pair, its loss and scores.

Legend: S sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from penjing.data.neighbours import Frame
from penjing.errors import NotSupported, SpecError
from penjing.models.heads import ClassHead
from penjing.models.load import Base
from penjing.models.queries import pair_frame
from penjing.records import Batch, Loss, Part, Scores
from penjing.task import Each, Feed, Task

STILL = 20_011  # seed of the pairs that validation sees, the same at every step
Vary = Callable[[Part, np.ndarray, int, Frame], Part]


def sentence_task(name: str, vary: Vary, dropout: float) -> Task:
    """A task that tells right pairs from wrong ones."""
    if not 0 <= dropout < 1:
        raise SpecError(f"`{name}.head_dropout` must be at least 0 and below 1; it is {dropout}.")

    def head(width: int, names: list[str], pooling: str, dense: nn.Linear | None) -> nn.Module:
        return ClassHead(width, 2, pooling=pooling, dropout=dropout, dense=dense or nn.Linear(width, width))

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.tokenizer.sep_token_id is None:
            raise NotSupported(
                f"`{name}` needs a tokenizer that sets two texts apart; that of `{base.name}` has no "
                "separator. Take a BERT-like base."
            )
        frame = Frame(*pair_frame(base.tokenizer))

        def infer(model: nn.Module, each: Each, part: Part) -> np.ndarray:
            shown = vary(part, np.arange(len(part)), STILL, frame)
            logits = torch.stack(each(shown, model)).double()
            losses = F.cross_entropy(logits, torch.from_numpy(shown.targets), reduction="none")
            return np.stack([losses.numpy(), logits.argmax(1).numpy() == shown.targets], 1).astype(np.float64)

        return replace(
            task,
            vary=lambda part, rows, seed: vary(part, rows, seed, frame),
            infer=infer,
            feed=Feed("document", frame.taken),
        )

    task = Task(
        name=name,
        head=head,
        loss=_loss,
        score=_score,
        best="loss",
        lower=True,
        untuned="own",
        bind=bind,
        feed=Feed(),
    )
    return task


def _loss(model: nn.Module, batch: Batch) -> Loss:
    logits = model(batch).float()
    assert batch.labels is not None
    return Loss(F.cross_entropy(logits, batch.labels), outputs=logits)


def _score(
    found: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
) -> Scores:
    values = {"loss": float(found[:, 0].mean()), "accuracy": float(found[:, 1].mean())}
    rows = []
    for place, name in enumerate(names):
        own = found[targets[:, 0] == place]
        if len(own):
            rows.append(
                {"source": name, "loss": float(own[:, 0].mean()), "accuracy": float(own[:, 1].mean())}
            )
    return Scores(values, {}, {"per_source": rows})
