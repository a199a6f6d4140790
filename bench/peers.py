"""The peers' side: transformers' Trainer (and peft), set up as their documentation and best users would."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.sets import pairs_of
from bench.systems import Job


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized rows as plain lists: quicker to read than an Arrow table, which favours the peer."""

    def __init__(self, path: str, names: list[str], tokenizer: Any, max_length: int) -> None:
        pairs = pairs_of(path)
        place = {name: i for i, name in enumerate(names)}
        found = tokenizer([text for text, _ in pairs], truncation=True, max_length=max_length)
        keys = list(found)
        self.rows = [
            {**{key: found[key][i] for key in keys}, "labels": place[label]}
            for i, (_, label) in enumerate(pairs)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]


class MeanClassifier(nn.Module):
    """Mean of the last states, dropout, one linear layer: Penjing's usual head for a mean-pooling base."""

    def __init__(self, folder: str, n_labels: int, dropout: float) -> None:
        super().__init__()
        from transformers import AutoModel

        kwargs = {} if dropout else _NO_DROPOUT
        self.trunk = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False, **kwargs)
        self.config = self.trunk.config
        self.dropout = nn.Dropout(dropout)
        self.more: Callable[[], Tensor] | None = None  # what is added to the loss while it trains
        self.classifier = nn.Linear(self.config.hidden_size, n_labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{loss, logits}, as Trainer wants them."""
        kwargs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.trunk(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        mask = attention_mask[:, :, None].to(hidden.dtype)
        logits = self.classifier(self.dropout((hidden * mask).sum(1) / mask.sum(1)))
        if labels is None:
            return {"logits": logits}
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": loss + self.more() if self.training and self.more else loss, "logits": logits}


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@dataclass(frozen=True)
class Peer:
    """A Trainer ready to train, and its rows."""

    trainer: Any
    rows: dict[str, Rows]
    names: list[str]
    counts: list[tuple[int, int, int]]  # of each collated batch: rows, real tokens, padded tokens
    steps: int


def build(
    job: Job, *, dropout: bool = True, callbacks: list[Any] | None = None, order: list[int] | None = None
) -> Peer:
    """The peer's Trainer. With `order`, these train rows in this order; without `dropout`, none of it."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
    from transformers.trainer_utils import set_seed

    given, split = job.settings, job.split
    steps = job.steps or given.steps(split.n_rows["train"])
    names = sorted({label for _, label in pairs_of(split.train)})
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(given.folder)
        set_seed(given.seed)
        model = _model(job, len(names), dropout)
    rows = {
        name: Rows(path, names, tokenizer, given.max_length)
        for name, path in (("train", split.train), ("valid", split.valid), ("test", split.test))
    }
    if order is not None:
        rows["train"].rows = [rows["train"].rows[i] for i in order]
    fast: dict[str, Any] = {}
    if job.system.grouped:
        fast.update(train_sampling_strategy="group_by_length", optim="adamw_torch_fused")
    if job.system.precision == "bf16":  # best where the machine gains from it; else take `-fp32`
        fast["bf16"] = True
    if order is not None:
        fast["train_sampling_strategy"] = "sequential"
    arguments = TrainingArguments(
        output_dir=str(Path(split.train).parent / "trainer"),
        per_device_train_batch_size=given.batch,
        per_device_eval_batch_size=64,
        learning_rate=given.rate(job.system.method),
        lr_scheduler_type=given.schedule,
        warmup_steps=given.warm_steps(steps),
        weight_decay=given.weight_decay,
        max_grad_norm=given.clip,
        max_steps=steps,
        seed=given.seed,
        use_cpu=given.device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        **fast,
    )
    counts: list[tuple[int, int, int]] = []
    if job.system.method == "adalora":
        callbacks = [*(callbacks or []), _allocating(model.trunk)]
    trainer = _recording(Trainer)(
        model=model,
        args=arguments,
        data_collator=_counting(DataCollatorWithPadding(tokenizer), counts),
        train_dataset=rows["train"],
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    if given.head_lr is not None:
        _with_head_rate(trainer, given.head_lr)
    return Peer(trainer, rows, names, counts, steps)


def accuracy(peer: Peer, split: str) -> float:
    """Share of a split's rows whose likeliest label is right, by `Trainer.predict`."""
    found = peer.trainer.predict(peer.rows[split])
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    return float((np.asarray(logits).argmax(1) == found.label_ids).mean())


def trunk_of(model: nn.Module) -> nn.Module:
    """The transformers model below classifier and peft."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return inner.trunk if isinstance(inner, MeanClassifier) else inner.base_model


def _model(job: Job, n_labels: int, dropout: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    given = job.settings
    if given.peer_head == "mean":
        model: Any = MeanClassifier(given.folder, n_labels, 0.1 if dropout else 0.0)
    else:
        off = {} if dropout else _NO_DROPOUT
        model = AutoModelForSequenceClassification.from_pretrained(
            given.folder, num_labels=n_labels, dtype=torch.float32, **off
        )
    if job.system.method == "full":
        return model
    if job.system.method == "lora":
        return _with_lora(model, job, dropout)
    return _with_adapter(model, job)


def _with_lora(model: Any, job: Job, dropout: bool) -> Any:
    """peft's LoRA on the linear layers that Penjing's default adapts.

    The classifier trains and is saved; the pooler stays frozen, as `task_type="SEQ_CLS"` has it, unless
    Penjing is to train the same head.
    """
    from peft import LoraConfig, get_peft_model

    from penjing.models.layers import linears_of

    given = job.settings
    mean = given.peer_head == "mean"
    own = ["classifier"] if mean else ["classifier", "pooler"] if given.ours_head == "cls" else None
    config = LoraConfig(
        r=given.rank,
        lora_alpha=given.alpha,
        lora_dropout=given.lora_dropout if dropout else 0.0,
        target_modules=linears_of(model, attention_only=given.targets == "attention"),
        task_type=None if mean else "SEQ_CLS",
        modules_to_save=own,
    )
    return get_peft_model(model, config)


def _with_adapter(model: Any, job: Job) -> Any:
    """Any other adapter of peft on the trunk, with the settings that Penjing gives it; the classifier trains.

    For AdaLoRA the orthogonality term is added as peft adds it to a model that computes its own loss.
    """
    from penjing import plugin
    from penjing.plugin import Choice

    assert isinstance(model, MeanClassifier), "adapters are put on the trunk alone; take --peer-head mean"
    settings = plugin.settings_of("methods", Choice(job.system.method, job.system.options))
    method = plugin.build("methods", Choice(job.system.method, settings))
    model.trunk = method.apply(model.trunk)
    if job.system.method == "adalora":
        from penjing.methods.adalora import orthogonality_of

        steps = job.steps or job.settings.steps(job.split.n_rows["train"])
        method.techniques(model.trunk, steps)  # sets the schedule of peft's config
        model.more = lambda: settings["orthogonality"] * orthogonality_of(model.trunk)
    return model


def _allocating(trunk: Any) -> Any:
    """What peft's documentation wants called after each step of AdaLoRA, as a callback of Trainer."""
    from transformers import TrainerCallback

    class Allocating(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trunk.base_model.update_and_allocate(state.global_step + 1)

    return Allocating()


def _recording(kind: Any) -> Any:
    """Trainer that also keeps each step's loss; the training is Trainer's own."""

    class Recording(kind):  # type: ignore[misc]
        losses: list[Tensor] | None = None

        def training_step(self, *args: Any, **keywords: Any) -> Tensor:
            loss: Tensor = super().training_step(*args, **keywords)
            if self.losses is not None:
                self.losses.append(loss.detach().float())
            return loss

    return Recording


def _with_head_rate(trainer: Any, rate: float) -> None:
    """Trainer's own optimizer, in which pooler and classifier have a rate of their own."""
    optimizer = trainer.create_optimizer()
    named = trunk_of(trainer.model).named_parameters()
    below = {id(parameter) for name, parameter in named if not name.startswith("pooler.")}
    for group in [*optimizer.param_groups]:
        above = [parameter for parameter in group["params"] if id(parameter) not in below]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in below]
        if above:
            optimizer.add_param_group({**group, "params": above, "lr": rate})


def _counting(
    collate: Callable[[list[dict[str, Any]]], Any], counts: list[tuple[int, int, int]]
) -> Callable[[list[dict[str, Any]]], Any]:
    """The collator, which also notes rows, real and padded tokens of each batch, in a few microseconds."""

    def counted(rows: list[dict[str, Any]]) -> Any:
        lengths = [len(row["input_ids"]) for row in rows]
        counts.append((len(rows), sum(lengths), len(rows) * max(lengths)))
        return collate(rows)

    return counted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
