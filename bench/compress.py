"""What compression is to reach: int8 against our own fp32, and chains against the peers' best by hand.

    .venv/bin/python bench/compress.py runs/bank --with int8 --with "trim_vocabulary>int8"
    .venv/bin/python bench/compress.py --smoke

Each chain goes through `penjing.compress`; then all models, the original and the peers answer the same rows
in turn: transformers fp32, padded, in the order of arrival; the same sorted by length; OpenVINO int8 (NNCF,
300 calibration rows) sorted by length, where it is installed. Rows a second, median over rounds, and each
over transformers' in arrival order in the same round. Writes bench/out/compress.json.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WANTED = {  # of issue 6
    "linears_smaller": 3.5, "one_row": 1.8, "full_batch": 1.8, "points_lost": 0.5, "over_transformers": 15.0,
    "over_best_peer": 1.5,
}  # fmt: skip
Answer = Callable[[Sequence[str]], Any]


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from penjing.threads import wait_without_spinning

    wait_without_spinning()
    from bench.machine import load_average, table, write
    from penjing.chains.compress import compress

    given = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as scratch:
        run = _smoke(Path(scratch)) if given.smoke else given.run
        if given.smoke:
            given.chains, given.rounds, given.batch = ["int8"], 2, 8
        loads, chains = [load_average()], {}
        for chain in given.chains or ["int8", "trim_vocabulary>int8"]:
            chains[chain] = compress(run, chain, allow=True, memory=not given.smoke, tell=_say)
        found = race(chains, given)
        loads.append(load_average())
        print()
        table([{"model": name, **line} for name, line in found.items()])
        print(f"Load average before and after: {loads}. Wanted: {WANTED}.")
        models = {chain: done.result for chain, done in chains.items()}
        given.out.mkdir(parents=True, exist_ok=True)
        write(given.out / "compress.json", {"race": found, "wanted": WANTED, "chains": models, "load": loads})
    return 0


def race(chains: dict[str, Any], given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All in turn on the same texts, rounds long."""
    from penjing.bundle import load
    from penjing.chains.footing import footing

    first = next(iter(chains.values()))
    ground = footing(first.result["run"], out=first.folder)
    texts = ground.rows.texts[: given.rows]
    original = ground.original
    answers: dict[str, Answer] = {"penjing fp32": original.predict}
    for chain, done in chains.items():
        answers[f"penjing {chain}"] = load(done.steps[-1].folder).predict
    answers |= dict(_peers(original, ground.train.texts[:300], given.batch))
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(given.rounds + 1):
        for name, answer in answers.items():
            began = time.perf_counter()
            answer(texts)
            seconds[name].append(time.perf_counter() - began)
    padded = seconds["transformers padded"][1:]
    found = {}
    for name, all_s in seconds.items():
        own = all_s[1:]
        over = statistics.median(a / b for a, b in zip(padded, own, strict=True))
        found[name] = {"rows/s": round(len(texts) / statistics.median(own)), "over padded": round(over, 2)}
    for chain, done in chains.items():
        last = done.steps[-1].weighed
        found[f"penjing {chain}"] |= {
            "1 row": round(last.versus_ms["1"] / last.latency_ms["1"], 2),
            "32 rows": round(last.versus_ms["32"] / last.latency_ms["32"], 2),
            "points lost": round(100 * last.lost, 2),
            "smaller": round(done.original.n_bytes / last.n_bytes, 2),
        }
    return found


def _peers(original: Any, calibration: list[str], batch: int) -> Iterator[tuple[str, Answer]]:
    """The original as others run it: the same trunk in transformers, and in what is installed."""
    import torch
    from transformers import AutoModel

    words, longest = original.tokenizer, original.card["max_length"]
    model = AutoModel.from_pretrained(original.folder / "trunk", dtype=torch.float32).eval()

    def padded(texts: Sequence[str]) -> None:
        with torch.inference_mode():
            for at in range(0, len(texts), batch):
                model(**_read(words, texts[at : at + batch], longest))

    yield "transformers padded", padded
    yield "transformers by length", lambda texts: padded(sorted(texts, key=len))
    with contextlib.suppress(ImportError):
        run = _openvino(original, words, longest, calibration, batch)
        yield "OpenVINO int8 by length", lambda texts: run(sorted(texts, key=len))


def _read(words: Any, texts: Sequence[str], longest: int) -> Any:
    return words(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")


def _openvino(original: Any, words: Any, longest: int, rows: list[str], batch: int) -> Answer:
    import torch

    from penjing.models.compiling import compiled

    tables = [{k: v.numpy() for k, v in _read(words, [text], longest).items()} for text in rows]
    graph = compiled(original.base, "int8", tables)

    def answer(texts: Sequence[str]) -> None:
        with torch.inference_mode():
            for at in range(0, len(texts), batch):
                graph(**_read(words, texts[at : at + batch], longest))

    return answer


def _smoke(folder: Path) -> Path:
    """A run of seconds on the embedded set."""
    from penjing import tune

    rows = ROOT / "src/penjing/data/support/en.train.csv"
    run = tune(
        {"base": "minilm", "method": "lora", "out": str(folder), "data": {"train": str(rows)},
         "train": {"steps": 2, "evals": 1}},
    )  # fmt: skip
    return run.folder


def _say(news: Any) -> None:
    if news.kind in ("stage", "note"):
        print(f"  {news.text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="a tuned run")
    parser.add_argument("--with", dest="chains", action="append", help="a chain; may be given again")
    parser.add_argument("--rows", type=int, default=1000, help="rows to answer")
    parser.add_argument("--batch", type=int, default=32, help="rows at once, of the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny, in a minute")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/out")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
