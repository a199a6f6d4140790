"""The end of a run: what was left out on the way is in the result, and the page begins as a page must."""

from pathlib import Path
from typing import Any

import pytest

from penjing import baseline, tune
from penjing.files import cache_folder


@pytest.mark.slow
def test_what_was_left_out_is_told_in_the_result(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "BUDGET_S", 1e-9)
    run = tune(small, steps=1)
    assert any("The baseline looked at words" in note for note in run.result["notes"])
    assert (run.folder / "report.html").read_bytes().startswith(b"<!doctype html>")


@pytest.mark.slow
def test_broken_kept_tokens_of_any_split_are_told(small: dict[str, Any], tmp_path: Path) -> None:
    lines = Path(small["data"]["train"]).read_text().splitlines()
    (tmp_path / "valid.csv").write_text("\n".join(lines[:8]).replace("order", "parcel") + "\n")
    small["data"]["valid"] = str(tmp_path / "valid.csv")
    tune(small, name="first", steps=1)
    folder = cache_folder()
    assert folder is not None
    for path in (folder / "tokens").glob("*.safetensors"):
        path.write_bytes(b"broken")
    told: list[str] = []
    tune(small, name="second", steps=1, tell=lambda news: told.append(news.text))
    assert sum("is broken; the texts are tokenized anew" in text for text in told) == 2
