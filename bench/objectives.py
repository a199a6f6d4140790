"""Masked and causal language modelling beside transformers' Trainer, on the same model, pieces and precision.

    .venv/bin/python bench/objectives.py masked --rounds 4 --block 10
    .venv/bin/python bench/objectives.py causal
    .venv/bin/python bench/objectives.py masked --block 2 --rounds 1 --base bert-tiny    # smoke

Both sides learn from the same pieces of lm_domains (en), cut once by our tokenizer, in turns, in one process.
The Trainer is set up as its best users would: its own collator (masked: 15 %, 80/10/10, padded to the
longest of a step, grouped by length; causal: pieces of one length, nothing padded), fused AdamW, bf16 where
that gains. Real tokens a second, from the first step after five of warming up to the last of a turn. `masked`
also tells how much memory each side's head takes, in processes of their own. Needs ../shared/data. Writes
bench/out/objectives-*.json.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
WARM = 5  # steps of a turn before its clock starts
BASES = {"masked": "bert-mini", "causal": "gpt-mini"}


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("objective", choices=("masked", "causal"))
    parser.add_argument("--base", help="a preset to grow")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--block", type=int, default=10, help="steps a turn")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        race(given, Path(folder))
    return 0


def race(given: argparse.Namespace, folder: Path) -> None:
    """Turns of both sides; prints and writes what came of them."""
    from bench.machine import load_average, processor, table, write

    job, loop = _ours(given, folder)
    trainer = _trainer(given, job, folder)
    rates: list[tuple[float, float]] = []
    for _ in islice(loop, WARM):
        pass
    for number in range(given.rounds):
        rates.append((_our_turn(loop, given.block), _their_turn(trainer, given.block)))
        print(
            f"round {number + 1}: ours {rates[-1][0]:,.0f}, Trainer {rates[-1][1]:,.0f} tokens/s", flush=True
        )
    ratios = [a / b for a, b in rates]
    facts: dict[str, Any] = {
        "processor": processor(), "load": load_average(), "precision": job.machine.precision,
        "base": given.base or BASES[given.objective], "batch": given.batch, "length": given.length,
        "rates": rates, "ratio": [median(ratios), min(ratios), max(ratios)],
    }  # fmt: skip
    row = {
        "objective": given.objective,
        "ours, tokens/s": f"{median(a for a, _ in rates):,.0f}",
        "Trainer": f"{median(b for _, b in rates):,.0f}",
        "ratio": f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
    }
    if given.objective == "masked":
        mib = [_head_mib(whole) for whole in (False, True)]
        facts["head_mib"] = mib
        row["head's memory, MiB"] = f"{mib[0]:,.0f} against {mib[1]:,.0f} ({mib[1] / max(mib[0], 0.1):.1f} x)"
    write(given.out / f"objectives-{given.objective}.json", facts)
    table([row])


def _ours(given: argparse.Namespace, folder: Path) -> tuple[Any, Iterator[Any]]:
    """Our job and its endless steps."""
    from penjing import spec as specs
    from penjing.engine import optim
    from penjing.engine.loop import train_steps
    from penjing.jobs.feeding import opened_corpus
    from penjing.jobs.prepare import ready, stream
    from penjing.jobs.vocabulary import train_tokenizer

    corpus = folder / "corpus"
    corpus.mkdir()
    for path in sorted((DATA / "lm_domains").glob("en_*.train.txt.gz")):
        (corpus / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    family, kind = {"masked": ("bert", "wordpiece"), "causal": ("gpt", "bpe")}[given.objective]
    train_tokenizer([str(corpus / "*.txt")], folder / "tok", kind=kind, family=family, vocab=16000)
    task = {"masked": {"units": "tokens"}} if given.objective == "masked" else {"causal": {"across": True}}
    spec = specs.read(
        base=given.base or BASES[given.objective], tokenizer=str(folder / "tok"), task=task,
        device=given.device, precision=given.precision,
        data={"train": str(corpus), "max_length": given.length},
        train={"steps": 10**6, "batch": given.batch, "micro_tokens": 10**9},
    )  # fmt: skip
    job = opened_corpus(spec)
    assert job.parts is not None
    made = ready(spec, job.task, job.data.names, job.base, job.machine, None, steps=10**6)
    optimizer = optim.optimizer(made.model, spec.train, made.lr)
    schedule = optim.schedule(spec.train, 10**6)
    steps = stream(spec, job.task, job.parts[0])
    return job, train_steps(made.model, steps, job.task.loss, optimizer, schedule, steps=10**6, seed=0)


def _our_turn(loop: Iterator[Any], block: int) -> float:
    began = time.perf_counter()
    tokens = sum(step.n_tokens for step in islice(loop, block))
    return float(tokens / (time.perf_counter() - began))


def _trainer(given: argparse.Namespace, job: Any, folder: Path) -> Any:
    """The peer's Trainer over our pieces, with a model of the same config from random weights."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
        default_data_collator,
    )

    masked = given.objective == "masked"
    tokenizer, part = job.base.tokenizer, job.parts[0]
    frame = tokenizer.num_special_tokens_to_add() if masked else 0
    first = [tokenizer.cls_token_id] if frame else []
    last = [tokenizer.sep_token_id] if frame else []
    starts = part.tokens.starts
    rows: list[dict[str, Any]] = [
        {"input_ids": [*first, *part.tokens.ids[starts[i] : starts[i + 1]].tolist(), *last]}
        for i in range(min(len(part), 20_000))
    ]
    if not masked:  # of one length, as packed inputs are
        rows = [{**r, "labels": r["input_ids"]} for r in rows if len(r["input_ids"]) == given.length]
    kind: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    fast: dict[str, Any] = {"bf16": job.machine.precision == "bf16"}
    if masked:
        fast["train_sampling_strategy"] = "group_by_length"
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=given.batch, learning_rate=5e-4,
        max_steps=WARM + given.block, optim="adamw_torch_fused", use_cpu=job.machine.device.type == "cpu",
        save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, **fast,
    )  # fmt: skip
    torch.manual_seed(0)
    config = copy.deepcopy(job.base.trunk.config)  # ours says which attention our own trunk runs
    return Trainer(
        model=kind.from_config(config, attn_implementation="sdpa"),
        args=arguments,
        data_collator=DataCollatorForLanguageModeling(tokenizer) if masked else default_data_collator,
        train_dataset=rows,
    )


def _their_turn(trainer: Any, block: int) -> float:
    """Tokens/s of a turn, its first steps aside. Real tokens: what the attention mask shows."""
    from transformers import TrainerCallback

    seen: dict[str, float] = {"step": 0, "tokens": 0, "began": 0, "ended": 0}
    collate = trainer.data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        seen["step"] += 1
        if seen["step"] > WARM:
            seen["tokens"] += sum(len(row["input_ids"]) for row in rows)
        return collate(rows)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == WARM:
                seen["began"] = time.perf_counter()
            if state.global_step == WARM + block:
                seen["ended"] = time.perf_counter()

    clock = Clock()
    trainer.data_collator = counting
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    trainer.data_collator = collate
    return float(seen["tokens"] / (seen["ended"] - seen["began"]))


def _head_mib(whole: bool) -> float:
    """Most memory that the head's forward and backward take above what lay there, MiB: 4,096 states of width
    256 over 30,522 words. `whole`: all states' logits at once, as transformers' own head makes them."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_head, (whole,))


def _peak_of_head(whole: bool) -> float:
    import torch
    from torch.nn import functional as F

    from penjing.models.linear_loss import linear_loss

    torch.manual_seed(0)
    states = torch.randn(4096, 256, requires_grad=True)
    words, bias = torch.randn(30522, 256, requires_grad=True), torch.zeros(30522, requires_grad=True)
    labels = torch.randint(30522, (4096,))
    hidden = torch.rand(4096) > 0.15
    words.grad, bias.grad, states.grad = (torch.zeros_like(t) for t in (words, bias, states))
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's record of the highest begins anew
    before = _status_mib("VmRSS")
    if whole:
        logits = F.linear(states, words, bias)
        F.cross_entropy(logits, labels.masked_fill(hidden, -100)).backward()
    else:
        asked = (~hidden).nonzero()[:, 0]
        (linear_loss(states[asked], words, bias, labels[asked]) / len(asked)).backward()
    return _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key + ":"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
