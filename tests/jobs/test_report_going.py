"""The report of a run that is still going."""

import json
from pathlib import Path

from jobs.test_report import made_run, read
from penjing.jobs.report import report


def test_of_a_run_still_going_whose_score_falls_the_lowest_is_the_best(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    (run / "result.json").unlink()
    lines = [
        {"step": step, "split": "valid", "best": "loss", "lower": True, "values": {"loss": loss}}
        for step, loss in ((20, 3.5), (40, 2.25), (60, 2.75))
    ]
    (run / "scores.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    html, _ = read(report(run))
    assert "Best on the validation rows so far: 2.250 loss, at step 40." in html
    assert "Best 2.250 at step 40." in html
