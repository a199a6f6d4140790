"""A merged bundle answers as run and base do, which stay as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from common import told
from penjing.bundle import load
from penjing.cli import app
from penjing.errors import NotSupported
from penjing.jobs.merge import merge
from penjing.jobs.prepare import rows_of
from penjing.jobs.seen import read_reference

TEXTS = ["my card was charged twice", "the parcel is late"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "ia3", "bitfit"])
def test_a_merged_bundle_answers_alike_and_leaves_run_and_base_as_they_were(
    method: str, tuned: Callable[..., Any], tmp_path: Path
) -> None:
    bundle = tuned(method).bundle
    before = bundle.probabilities(TEXTS)
    whole = merge(tuned(method).folder, tmp_path / "whole")
    assert whole.card["saves"] == "full"
    assert whole.card["method"] == bundle.card["method"]
    assert float(np.abs(whole.probabilities(TEXTS) - before).max()) < 1e-5
    assert np.array_equal(bundle.probabilities(TEXTS), before)
    again = load(tuned(method).folder)  # its base is checked by SHA-256
    assert np.array_equal(again.probabilities(TEXTS), before)


@pytest.mark.slow
def test_a_merged_bundle_needs_no_base(tuned: Callable[..., Any], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["merge", str(tuned("lora").folder), "-o", str(tmp_path / "whole")])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(tmp_path / "whole")
    files = {path.relative_to(tmp_path / "whole").parts[0] for path in (tmp_path / "whole").iterdir()}
    assert files == {"card.json", "head.safetensors", "reference.safetensors", "tokenizer", "trunk"}


@pytest.mark.slow
def test_a_merged_bundle_keeps_what_drift_is_compared_with(tuned: Callable[..., Any], tmp_path: Path) -> None:
    run = tuned("lora")
    merge(run.folder, tmp_path / "whole")
    ours, theirs = (read_reference(load(place)) for place in (tmp_path / "whole", run.folder))
    assert ours.seen.answers == theirs.seen.answers
    assert np.array_equal(ours.seen.vectors, theirs.seen.vectors)
    rows = rows_of(run.spec, run.bundle.task).valid.texts
    assert ours.seen.answers == [one["label"] for one in load(tmp_path / "whole").predict(rows)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adapter", "prompt"])
def test_bottlenecks_and_prompts_are_refused(method: str, tuned: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(NotSupported) as error:
        merge(tuned(method).folder, tmp_path / "whole")
    told(error, "classify", method, "no change of one base's weights", "as it is")
    assert not (tmp_path / "whole").exists()
