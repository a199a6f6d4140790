"""Entities, slots and relations: Penjing beside transformers' Trainer, over seeds.

    .venv/bin/python bench/tag.py --data conll2003 --seeds 0,1,2
    .venv/bin/python bench/tag.py --data cluener --base models/some-chinese-encoder --systems penjing,trainer
    .venv/bin/python bench/tag.py --data semeval --train-rows 2000 --test-rows 500   # a smoke test

Writes bench/out/tag-<data>.json. A cell is one (system, seed); finished cells are not run again. All systems
get the same base, rows, steps, rate, schedule, decay, clipping and length; what is scored is the model after
the last step. `trainer` is the loop of transformers' run_ner example: first pieces labelled, dynamic padding,
AdamW, scored by seqeval; for snips with a second head over the first state (JointBERT), for
semeval a sequence classifier on the same marked texts. `penjing-crf` and `penjing-span` decode as named.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
SETS: dict[str, dict[str, Any]] = {
    "conll2003": {"task": "tag", "train": "conll2003/train.txt.gz", "test": "conll2003/test.txt.gz"},
    "snips": {"task": {"tag": {"intent": True}}, "train": "snips/train", "test": "snips/test"},
    "cluener": {
        "task": {"tag": {"repair": True}},
        "train": "cluener/train.json.gz",
        "test": "cluener/dev.json",
    },
    "semeval": {
        "task": "relate",
        "train": "semeval2010_task8/TRAIN_FILE.TXT.gz",
        "test": "semeval2010_task8/TEST_FILE_FULL.TXT.gz",
    },
}
OURS = {"penjing": {}, "penjing-crf": {"crf": True}, "penjing-span": {"decode": "span"}}


def task_of(chosen: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A set's task with more settings."""
    name, settings = (
        (chosen["task"], {}) if isinstance(chosen["task"], str) else next(iter(chosen["task"].items()))
    )
    return {name: {**settings, **more}}


def ours(name: str, chosen: dict[str, Any], seed: int, given: argparse.Namespace) -> dict[str, float]:
    """A run of Penjing on rows written down once for all systems."""
    from penjing import tune

    with tempfile.TemporaryDirectory(prefix="penjing-tag-") as folder:
        run = tune(
            base=given.base, task=task_of(chosen, OURS[name]), method=given.method, seed=seed, out=folder,
            data={"train": chosen["train"], "test": chosen["test"], "max_length": given.max_length,
                  "valid_share": 0.02},
            train={"epochs": given.epochs, "batch": given.batch, "lr": given.lr, "evals": 0},
            device=given.device,
        )  # fmt: skip
        result = run.result
    return {**result["after"]["values"], "train_s": result["cost"]["seconds"]}


def trainer(chosen: dict[str, Any], seed: int, given: argparse.Namespace) -> dict[str, float]:
    """transformers' Trainer on the rows that Penjing learns from."""
    import torch
    from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed

    from penjing import plugin
    from penjing.data.split import split
    from penjing.models.load import find

    folder = str(find(given.base))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = plugin.build("tasks", plugin.choice(task_of(chosen, {}), kind="tasks", key="task"))
    train, test = task.rows(chosen["train"]), task.rows(chosen["test"])
    train = train.take(split(train, share=0.02, seed=seed)[0])
    names = task.label_names(train)
    related = task.name == "relate"
    made = (
        _relations(tokenizer, folder, train, test, names, given)
        if related
        else _tags(tokenizer, folder, train, test, names, given)
    )
    set_seed(seed)
    model = made["model"]()
    with tempfile.TemporaryDirectory(prefix="penjing-tag-") as out:
        settings = TrainingArguments(
            output_dir=out, seed=seed, per_device_train_batch_size=given.batch, num_train_epochs=given.epochs,
            learning_rate=given.lr, lr_scheduler_type="linear", warmup_steps=0.1, weight_decay=0.01,
            max_grad_norm=1.0, save_strategy="no", report_to="none", logging_strategy="no", disable_tqdm=True,
            use_cpu=given.device == "cpu", remove_unused_columns=False,
        )  # fmt: skip
        loop = Trainer(model=model, args=settings, train_dataset=made["train"], data_collator=made["collate"])
        began = time.perf_counter()
        loop.train()
        seconds = time.perf_counter() - began
    model.eval()
    outputs = []
    with torch.inference_mode():
        for begin in range(0, len(made["test"]), 64):
            batch = made["collate"](made["test"][begin : begin + 64])
            batch = {key: value.to(model.device) for key, value in batch.items()}
            outputs.append(
                {key: value.float().cpu().numpy() for key, value in model(**batch).items() if key != "loss"}
            )
    return {**made["score"](outputs), "train_s": seconds}


def _tags(tokenizer: Any, folder: str, train: Any, test: Any, names: list[str], given: Any) -> dict[str, Any]:
    """Rows, model and scorer of run_ner: words, the label at the first piece, seqeval."""
    import torch
    from seqeval.metrics import f1_score
    from torch import nn
    from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

    from penjing.data.align import sites_of
    from penjing.data.schemes import tag_names, tagged
    from penjing.entities.answers import apart

    kinds, whole = apart(names)
    tags = tag_names(kinds, "bio")

    def rows_of(rows: Any) -> list[dict[str, Any]]:
        found = []
        for item, labels in zip(rows.items, rows.labels, strict=True):
            spans = [(*sites_of(item.words, e.start, e.end), kinds.index(e.label)) for e in item.entities]
            own = tagged([span for span in spans if span[0] < span[1]], len(item.words), "bio")
            words = [item.text[a:b] for a, b in item.words]
            read = tokenizer(words, is_split_into_words=True, truncation=True, max_length=given.max_length)
            places, before = [], None
            for word in read.word_ids():
                places.append(-100 if word is None or word == before else int(own[word]))
                before = word
            row = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"], "labels": places}
            found.append(row | ({"intent": whole.index(labels[0])} if whole else {}))
        return found

    class Joint(nn.Module):
        """A tagger with a second head over the first state."""

        def __init__(self) -> None:
            super().__init__()
            self.tagger = AutoModelForTokenClassification.from_pretrained(folder, num_labels=len(tags))
            self.whole = nn.Linear(self.tagger.config.hidden_size, len(whole))

        @property
        def device(self) -> Any:
            return self.whole.weight.device

        def forward(self, intent: Any = None, **batch: Any) -> dict[str, Any]:
            out = self.tagger(**batch, output_hidden_states=True)
            logits = self.whole(out.hidden_states[-1][:, 0])
            loss = out.loss if intent is None else out.loss + nn.functional.cross_entropy(logits, intent)
            return {"loss": loss, "logits": out.logits, "intents": logits}

    test_rows = rows_of(test)

    def score(outputs: list[dict[str, Any]]) -> dict[str, float]:
        said = [row for out in outputs for row in out["logits"].argmax(-1)]
        truth, answers = [], []
        for item, row, own in zip(test.items, test_rows, said, strict=True):
            kept = [(label, int(tag)) for label, tag in zip(row["labels"], own, strict=False) if label >= 0]
            lost = len(item.words) - len(kept)  # words that the length cuts off are answered O
            spans = [(*sites_of(item.words, e.start, e.end), kinds.index(e.label)) for e in item.entities]
            gold = tagged([span for span in spans if span[0] < span[1]], len(item.words), "bio")
            truth.append([tags[tag] for tag in gold])
            answers.append([*(tags[tag] for _, tag in kept), *["O"] * lost])
        values = {"micro_f1": float(f1_score(truth, answers))}
        if whole:
            right = [row["intent"] for row in test_rows]
            found = np.concatenate([out["intents"].argmax(-1) for out in outputs])
            values["intent_accuracy"] = float((found == right).mean())
        return values

    pad = DataCollatorForTokenClassification(tokenizer)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(pad([{k: v for k, v in row.items() if k != "intent"} for row in rows]))
        return batch | ({"intent": torch.tensor([row["intent"] for row in rows])} if whole else {})

    def model() -> Any:
        if whole:
            return Joint()
        return AutoModelForTokenClassification.from_pretrained(folder, num_labels=len(tags))

    return {"train": rows_of(train), "test": test_rows, "collate": collate, "model": model, "score": score}


def _relations(
    tokenizer: Any, folder: str, train: Any, test: Any, names: list[str], given: Any
) -> dict[str, Any]:
    """Rows, model and scorer of a sequence classifier on texts marked as Penjing marks them."""
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

    from penjing.entities.relations import scores_of
    from penjing.tasks.relate import written

    def rows_of(rows: Any) -> list[dict[str, Any]]:
        found = []
        for item, labels in zip(rows.items, rows.labels, strict=True):
            text = written(item, "plain")[0]
            read = tokenizer(text, truncation=True, max_length=given.max_length)
            row = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"]}
            found.append(row | {"labels": names.index(labels[0])})
        return found

    test_rows = rows_of(test)

    def score(outputs: list[dict[str, Any]]) -> dict[str, float]:
        logits = np.concatenate([out["logits"] for out in outputs]).astype(np.float64)
        p = np.exp(logits - logits.max(1, keepdims=True))
        targets = np.array([row["labels"] for row in test_rows])
        return scores_of(p / p.sum(1, keepdims=True), targets, names, 0).values

    def model() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names))

    return {"train": rows_of(train), "test": test_rows, "collate": DataCollatorWithPadding(tokenizer),
            "model": model, "score": score}  # fmt: skip


def shortened(chosen: dict[str, Any], given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The set's files in full, or, for smoke tests, their first rows as JSON lines."""
    whole = {**chosen, "train": str(SHARED / chosen["train"]), "test": str(SHARED / chosen["test"])}
    if not (given.train_rows or given.test_rows):
        return whole
    from penjing import plugin

    task = plugin.build("tasks", plugin.choice(task_of(chosen, {}), kind="tasks", key="task"))
    for part, most in (("train", given.train_rows), ("test", given.test_rows)):
        rows = task.rows(whole[part])
        rows = rows.take(np.arange(min(len(rows), most or len(rows))))
        path = folder / f"{part}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for item, labels in zip(rows.items, rows.labels, strict=True):
                file.write(json.dumps(_as_row(item, labels), ensure_ascii=False) + "\n")
        whole[part] = str(path)
    return whole


def _as_row(item: Any, labels: tuple[str, ...]) -> dict[str, Any]:
    if hasattr(item, "marked"):
        return {"text": item.marked, "label": labels[0]}
    spans = [{"start": e.start, "end": e.end, "label": e.label} for e in item.entities]
    return {"text": item.text, "entities": spans} | ({"intent": labels[0]} if labels else {})


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, processor, table

    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"tag-{given.data}.json"
    about = {k: v for k, v in vars(given).items() if k not in ("out", "systems", "seeds")}
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else {"about": about, "cells": {}}
    if kept["about"] != about:
        raise SystemExit(f"{path} holds cells of {kept['about']}, not {about}. Move it away, or say --out.")
    cells: dict[str, Any] = kept["cells"]
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        chosen = shortened(SETS[given.data], given, Path(folder))
        for name in given.systems:
            for seed in given.seeds:
                key = f"{name} seed={seed}"
                if key in cells:
                    continue
                began, before = time.process_time(), load_average()
                found = trainer(chosen, seed, given) if name == "trainer" else ours(name, chosen, seed, given)
                cells[key] = found | {"cpu_s": time.process_time() - began, "load": [before, load_average()]}
                whole = {"about": about, "processor": processor(), "cells": cells}
                path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
                print(f"{key}: { ({k: round(v, 4) for k, v in found.items()}) }", flush=True)
    shown = [
        name
        for name in ("micro_f1", "intent_accuracy", "official_f1")
        if any(name in c for c in cells.values())
    ]
    table([_line(name, own, shown) for name in given.systems
           if (own := [c for key, c in cells.items() if key.startswith(f"{name} ")])])  # fmt: skip
    return 0


def _line(name: str, cells: list[dict[str, Any]], shown: list[str]) -> dict[str, str]:
    line = {"system": name, "seeds": str(len(cells))}
    for score in shown:
        values = [100 * cell[score] for cell in cells if score in cell]
        line[score] = f"{mean(values):.2f} ± {stdev(values) if len(values) > 1 else 0:.2f}" if values else "–"
    return line | {"train s": f"{mean(c['train_s'] for c in cells):.0f}"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="conll2003", choices=SETS)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--method", default="full")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=["penjing", "trainer"])
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--train-rows", type=int, help="only so many train rows, for a smoke test")
    parser.add_argument("--test-rows", type=int, help="only so many test rows, for a smoke test")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
