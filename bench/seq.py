"""Translation beside transformers: tokens/s of training (Seq2SeqTrainer) and of `generate`, equal answers.

    .venv/bin/python bench/seq.py                          # Multi30k en-de in ../shared/data
    .venv/bin/python bench/seq.py --data a.en+a.de --rows 2000 --steps 60 --asked 64 --rounds 3

One Marian model, grown from random weights with a tokenizer learned from the rows, is trained by both from
the same weights with the same rows, batch, rate, schedule and steps (lengths grouped by both), then says the
sources greedily and by beams. Systems take turns in rounds; medians are told. Tokens are those of sources and
targets, or those that were said; padding counts for nothing. Writes JSON to bench/out.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM = 5  # steps that are not timed


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, processor, table, write

    given = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as name:
        folder = Path(name)
        pairs = _pairs(given.data, given.rows)
        base = _base(folder, pairs, given.vocab, given.preset)
        found: dict[str, list[float]] = {}
        for number in range(given.rounds):
            for system, train in (("penjing", _ours), ("transformers", _theirs)):
                rate = train(base, folder / f"{system}-{number}", pairs, given)
                found.setdefault(f"train {system}", []).append(rate)
        equal = _said(base, [a for a, _ in pairs[: given.asked]], given, found)
    rates = {name: median(values) for name, values in found.items()}
    table([
        {"what": what, "penjing": f"{rates[f'{what} penjing']:,.0f}",
         "transformers": f"{rates[f'{what} transformers']:,.0f}",
         "times": f"{rates[f'{what} penjing'] / rates[f'{what} transformers']:.2f}"}
        for what in ("train", "greedy", f"beams {given.beams}")
    ])  # fmt: skip
    print(f"tokens/s, medians of {given.rounds}; equal answers: {equal:.1%}")
    given.out.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(given).items()}
    about = {"processor": processor(), "load": load_average(), "settings": settings, "equal": equal}
    write(given.out / "seq.json", {**about, "rates": found})
    return 0 if equal > 0.99 else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = ROOT.parent / "shared" / "data" / "multi30k_en_de"
    parser.add_argument("--data", default=f"{shared / 'train.en.gz'}+{shared / 'train.de.gz'}")
    parser.add_argument("--preset", default="transformer-tiny")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--vocab", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--asked", type=int, default=64, help="sources that are translated")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--longest", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


def _pairs(data: str, rows: int) -> list[tuple[str, str]]:
    sides = []
    for name in data.split("+"):
        path = Path(name)
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        sides.append(raw.decode().splitlines()[:rows])
    return [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True) if a.strip() and b.strip()]


def _base(folder: Path, pairs: list[tuple[str, str]], vocab: int, preset: str) -> Path:
    """A checkpoint with random weights that both load."""
    import transformers

    from penjing.models.grow import config_of

    (folder / "both.txt").write_text("\n".join(text for pair in pairs for text in pair), encoding="utf-8")
    _penjing("tokenizer", "train", folder / "both.txt", "-o", folder / "tok", "--family", "marian",
             "--kind", "unigram", "--vocab", vocab)  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tok")
    config = config_of(preset, tokenizer=tokenizer)
    transformers.set_seed(0)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    for side, suffix in enumerate(("en", "de")):
        lines = "\n".join(pair[side] for pair in pairs)
        (folder / f"train.{suffix}").write_text(lines + "\n", encoding="utf-8")
    return folder / "base"


def _penjing(*words: Any) -> None:
    from typer.testing import CliRunner

    from penjing.cli import app

    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def _ours(base: Path, out: Path, pairs: list[tuple[str, str]], given: Any) -> float:
    import json

    from penjing import tune

    rows = f"{base.parent / 'train.en'}+{base.parent / 'train.de'}"
    run = tune(
        base=str(base), train=rows, out=str(out), device="cpu", precision="fp32", steps=given.steps, evals=0,
        batch=given.batch, lr=1e-3, max_length=64, cache=False, task={"translate": {"longest": 64}},
    )  # fmt: skip
    steps = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    timed = [step for step in steps if "n_tokens" in step][WARM:]
    return float(sum(step["n_tokens"] for step in timed) / sum(step["seconds"] for step in timed))


def _theirs(base: Path, out: Path, pairs: list[tuple[str, str]], given: Any) -> float:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(base)
    rows = [
        {"input_ids": tokenizer(a, truncation=True, max_length=64).input_ids,
         "labels": tokenizer(text_target=b, truncation=True, max_length=64).input_ids}
        for a, b in pairs
    ]  # fmt: skip
    times: list[float] = []
    tokens: list[int] = []
    collate = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)

    def counted(some: list[dict[str, Any]]) -> Any:
        tokens.append(sum(len(one["input_ids"]) + len(one["labels"]) for one in some))
        return collate(some)

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *given: Any, **more: Any) -> None:
            times.append(time.perf_counter())

    settings = transformers.Seq2SeqTrainingArguments(
        output_dir=str(out), per_device_train_batch_size=given.batch, max_steps=given.steps,
        learning_rate=1e-3, lr_scheduler_type="inverse_sqrt", warmup_steps=max(1, given.steps // 10),
        weight_decay=0.01,
        train_sampling_strategy="group_by_length", report_to=[], use_cpu=True, save_strategy="no",
        logging_strategy="no", disable_tqdm=True, seed=0,
    )  # fmt: skip
    trainer = transformers.Seq2SeqTrainer(
        model=model, args=settings, train_dataset=rows, data_collator=counted, callbacks=[Clock()]
    )
    trainer.train()
    return sum(tokens[WARM : len(times)]) / (times[-1] - times[WARM - 1])


def _said(base: Path, sources: list[str], given: Any, found: dict[str, list[float]]) -> float:
    """Time both `generate`s on the same weights; the share of equal answers."""
    import torch
    import transformers

    from penjing.models.decoding import Decoding
    from penjing.models.generate import generate
    from penjing.models.load import load
    from penjing.models.model import Model
    from penjing.models.word_head import word_head

    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(base).eval()
    own = load(str(base), whole=True)
    head, _ = word_head(own, "answer", weights=True)
    ours = Model(own.trunk, head, own.way).prepare("fp32").eval()
    stop = own.tokenizer.eos_token_id
    rows = [own.tokenizer(text, truncation=True, max_length=64).input_ids for text in sources]
    rows.sort(key=len)
    padded = own.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    same = whole = 0
    for _ in range(given.rounds):
        for what, beams in (("greedy", 1), (f"beams {given.beams}", given.beams)):
            began = time.perf_counter()
            said = generate(ours, rows, Decoding(max_new=given.longest, beams=beams), stop=[stop])
            texts = [list(one[0].ids) for one in said]
            n_said = sum(map(len, texts)) + len(texts)
            found.setdefault(f"{what} penjing", []).append(n_said / (time.perf_counter() - began))
            config = transformers.GenerationConfig(
                max_new_tokens=given.longest, num_beams=beams, do_sample=False, eos_token_id=stop,
                pad_token_id=theirs.config.pad_token_id,
                decoder_start_token_id=theirs.config.decoder_start_token_id,
            )  # fmt: skip
            theirs.generation_config = config
            began = time.perf_counter()
            with torch.inference_mode():
                ids = theirs.generate(**padded, generation_config=config)[:, 1:].tolist()
            seconds = time.perf_counter() - began
            other = [row[: row.index(stop)] if stop in row else [t for t in row if t != config.pad_token_id]
                     for row in ids]  # fmt: skip
            found.setdefault(f"{what} transformers", []).append((sum(map(len, other)) + len(other)) / seconds)
            same += sum(a == b for a, b in zip(texts, other, strict=True))
            whole += len(texts)
    return same / whole


if __name__ == "__main__":
    raise SystemExit(main())
