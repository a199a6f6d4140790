"""How much faster a MiniLM in int8 is than our own fp32, packed, one row at a time and 32; peers beside them.

    .venv/bin/python bench/int8.py --texts rows.txt
    .venv/bin/python bench/int8.py --threads 2 --smoke

All answer the same batches in turn, round after round; the time of a batch is the least over rounds, of CPU
time with one thread, so that a busy machine takes little part, else of the clock's. Rows are sorted by length
for all. 300 of the rows calibrate static int8 and the peers that want it. Peers by hand, where they are
installed: OpenVINO int8 (NNCF) and ONNX Runtime int8 (dynamic, a scale a channel), padded within a batch.
Also whether a row alone answers as in its batch. Writes bench/out/int8.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "src/penjing/data/support/en.train.csv"
FIRST, WANTED = "fp32", 1.8
Run = Callable[[Sequence[Sequence[int]]], Any]  # rows of ids -> (rows, width) means of states


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    given = _parser().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    from penjing.heap import keep_freed_memory
    from penjing.threads import wait_without_spinning

    wait_without_spinning()
    keep_freed_memory()
    import torch

    from bench.machine import load_average, table, write

    torch.set_num_threads(given.threads)
    if given.smoke:
        given.rows, given.rounds = 64, min(given.rounds, 2)
    loads = [load_average()]
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as scratch:
        rows, runs = _runners(given, Path(scratch))
        with torch.inference_mode():
            found = race(
                runs,
                rows,
                given.rounds,
                given.batches,
                time.process_time if given.threads == 1 else time.perf_counter,
            )
    loads.append(load_average())
    table([{"model": name, **line} for name, line in found.items()])
    print(
        f"{given.threads} thread(s). Load average before and after: {loads}. Wanted of int8: "
        f"{WANTED} times {FIRST}."
    )
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "int8.json", {"race": found, "wanted": WANTED, "load": loads})
    return 0


def race(
    runs: dict[str, Run],
    rows: Sequence[Sequence[int]],
    rounds: int,
    most: int,
    clock: Callable[[], float],
) -> dict[str, dict[str, Any]]:
    """Milliseconds a batch and times the first one's speed, at 1 and 32 rows."""
    import torch

    found: dict[str, dict[str, Any]] = {name: {} for name in runs}
    for size in (1, 32):
        every = [rows[at : at + size] for at in range(0, len(rows), size)]
        batches = every[:: max(1, len(every) // most)]
        best = {name: [float("inf")] * len(batches) for name in runs}
        for _ in range(rounds):
            for i, batch in enumerate(batches):
                for name, run in runs.items():
                    began = clock()
                    run(batch)
                    best[name][i] = min(best[name][i], clock() - began)
        for name, times in best.items():
            found[name][f"ms, {size} rows"] = round(1000 * sum(times) / len(times), 2)
            found[name][f"x, {size} rows"] = round(sum(best[FIRST]) / sum(times), 2)
    for name, run in runs.items():
        batch = rows[-32:]
        alone = torch.cat([run([row]) for row in batch])
        near = torch.nn.functional.cosine_similarity(alone, run(batch))
        fp32 = torch.nn.functional.cosine_similarity(run(batch), runs[FIRST](batch))
        found[name] |= {"alone": f"{float(near.min()):.6f}", "to fp32": f"{float(fp32.mean()):.4f}"}
    return found


def _runners(given: argparse.Namespace, scratch: Path) -> tuple[list[list[int]], dict[str, Run]]:
    """Rows of ids, shortest first, and who answers them."""
    import copy

    import torch

    from penjing.compressors.int8 import Int8Linear
    from penjing.models.layers import linears_of
    from penjing.models.load import load
    from penjing.models.slim import weight_of

    base = load(given.base, device=torch.device("cpu"))
    base.trunk.eval().requires_grad_(False)
    texts = _texts(given.texts)[: given.rows]
    rows = sorted((base.tokenizer(text)["input_ids"][:256] for text in texts), key=len)
    held = copy.deepcopy(base.trunk)
    for name in linears_of(held):
        held.set_submodule(name, Int8Linear.of(weight_of(held, name), held.get_submodule(name).bias))
    some = rows[:: max(1, len(rows) // 300)]
    runs = {
        FIRST: _ours(base.trunk, base.way),
        "int8": _ours(held, base.way),
        "static int8": _ours(_static(base, some), base.way),
    }
    if not given.smoke:
        tables = [_table([row]) for row in some]
        with contextlib.suppress(ImportError):
            runs["OpenVINO int8"] = _openvino(base, tables)
        with contextlib.suppress(ImportError):
            runs["ONNX Runtime int8"] = _onnxruntime(base, scratch)
    return rows, runs


def _ours(trunk: Any, way: Any) -> Run:
    import torch

    from penjing.models.heads import pool
    from penjing.models.straight import run

    def answer(rows: Sequence[Sequence[int]]) -> Any:
        lengths = [len(row) for row in rows]
        ids = torch.tensor([i for row in rows for i in row])
        return pool(run(trunk, way, ids, lengths), lengths, "mean")

    return answer


def _static(base: Any, rows: Sequence[Sequence[int]]) -> Any:
    """The trunk with static int8 linears, on grids that span what these rows give them."""
    import copy

    import torch

    from penjing.models.calibrated_int8 import CalibratedInt8
    from penjing.models.layers import linears_of
    from penjing.models.packing import run
    from penjing.models.slim import weight_of

    held = copy.deepcopy(base.trunk)
    spans: dict[str, tuple[float, float]] = {}

    def hear(name: str) -> Any:
        def look(module: Any, given: Any) -> None:
            low, high = spans.get(name, (0.0, 0.0))
            spans[name] = min(low, float(given[0].min())), max(high, float(given[0].max()))

        return look

    names = linears_of(held)
    hooks = [held.get_submodule(name).register_forward_pre_hook(hear(name)) for name in names]
    with torch.inference_mode():
        for row in rows:
            run(held, base.way, torch.tensor(row), [len(row)])
    for hook in hooks:
        hook.remove()
    for name in names:
        made = CalibratedInt8.of(weight_of(held, name), held.get_submodule(name).bias, span=spans[name])
        held.set_submodule(name, made)
    return held


def _table(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    import numpy as np

    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _mean(states: Any, mask: Any) -> Any:
    import torch

    here = torch.from_numpy(mask)[..., None].float()
    return (torch.as_tensor(states) * here).sum(1) / here.sum(1)


def _openvino(base: Any, tables: Sequence[dict[str, Any]]) -> Run:
    import torch

    from penjing.models.compiling import compiled

    graph = compiled(base, "int8", tables)

    def answer(rows: Sequence[Sequence[int]]) -> Any:
        table = _table(rows)
        states = graph(**{name: torch.from_numpy(x) for name, x in table.items()}).last_hidden_state
        return _mean(states, table["attention_mask"])

    return answer


def _onnxruntime(base: Any, scratch: Path) -> Run:
    import copy

    import onnxruntime
    import torch
    from onnxruntime.quantization import quantize_dynamic

    from penjing.models.packing import native

    class States(torch.nn.Module):
        def __init__(self, trunk: Any) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.trunk(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    trunk = copy.deepcopy(base.trunk)
    native(trunk)
    names, plain, low = list(_table([[1]])), str(scratch / "a.onnx"), str(scratch / "b.onnx")
    free = {0: torch.export.Dim("rows", min=1, max=512), 1: torch.export.Dim("tokens", min=2, max=256)}
    example = tuple(torch.from_numpy(x) for x in _table([[5] * 9, [6] * 7]).values())
    torch.onnx.export(
        States(trunk).eval(), example, plain, input_names=names, dynamic_shapes=[free] * 3, verbose=False
    )
    quantize_dynamic(plain, low, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    session = onnxruntime.InferenceSession(low, options, providers=["CPUExecutionProvider"])

    def answer(rows: Sequence[Sequence[int]]) -> Any:
        table = _table(rows)
        return _mean(session.run(None, table)[0], table["attention_mask"])

    return answer


def _texts(path: Path) -> list[str]:
    """Lines of a text file, or the `text` column of a CSV file."""
    if path.suffix != ".csv":
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, default=ROWS, help="a text a line, or CSV with a column `text`")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--rows", type=int, default=1000, help="texts to answer")
    parser.add_argument("--batches", type=int, default=12, help="at most so many of each size, evenly chosen")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="tiny, without peers")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/out")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
