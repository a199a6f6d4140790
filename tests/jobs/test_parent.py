"""A run that begins where another ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import told
from conftest import tickets
from penjing import check, tune
from penjing.errors import NotSupported, SpecError
from penjing.jobs.training import begin, opened
from penjing.run import Run
from penjing.spec import read

TEXTS = [text for text, _ in tickets(12)]


def begun(run: Run, folder: Path, method: Any, **more: Any) -> Any:
    """A run with that parent, before its first step."""
    from penjing import run as runs

    spec = read(run.spec, parent=run.folder, out=folder, method=method, **more)
    return begin(runs.new(spec), opened(spec, lambda _: None), introduced=False)


@pytest.mark.parametrize(
    "method",
    ["lora", "full", "bitfit", *(pytest.param(m, marks=pytest.mark.slow) for m in ("ia3", "adapter", "top"))],
)
def test_before_its_first_step_it_answers_as_its_parent(
    method: str, tuned: Callable[..., Any], tmp_path: Path
) -> None:
    run = tuned(method)
    it = begun(run, tmp_path, method)
    from penjing.engine.scoring import predictions

    now = predictions(it.job.task, it.made.model.eval(), run.bundle.part(rows(TEXTS), labelled=False))
    assert np.abs(now - run.bundle.probabilities(TEXTS)).max() < 1e-6
    lineage = it.run.read("lineage.json")["parent"]
    assert lineage["folder"] == str(run.folder / "best")


def rows(texts: list[str]) -> Any:
    from penjing.data.parts import rows_of

    return rows_of(texts)


@pytest.mark.slow
def test_new_labels_come_between_old_ones_and_the_old_keep_their_rows(
    tuned: Callable[..., Any], tmp_path: Path
) -> None:
    run = tuned("lora")
    more = [*tickets(90), *((f"please cancel order {i}", "cancel") for i in range(20))]
    (tmp_path / "more.csv").write_text(
        "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in more)
    )
    it = begun(run, tmp_path, "lora", train=tmp_path / "more.csv")
    assert it.job.data.names == ["account", "billing", "cancel", "delivery"]
    from penjing.engine.scoring import outputs

    seen = run.bundle.tokens(TEXTS)
    now = outputs(it.made.model.eval(), seen).numpy()
    before = outputs(run.bundle.model, seen).numpy()
    assert np.abs(now[:, [0, 1, 3]] - before).max() < 1e-5
    tune(read(it.job.spec, name="whole", steps=2, evals=1))


@pytest.mark.slow
def test_another_base_method_or_settings_are_refused(tuned: Callable[..., Any], tmp_path: Path) -> None:
    run = tuned("lora")
    with pytest.raises(SpecError) as method:
        begun(run, tmp_path, "bitfit")
    told(method, "a bundle of `method: lora`", "says `method: bitfit`", "or leave `parent` out")
    with pytest.raises(NotSupported) as settings:
        begun(run, tmp_path, {"lora": {"rank": 3}})
    told(settings, "was to be learned further", "does not fit", "as its card.json says")
    with pytest.raises(NotSupported, match=r"no such folder"):
        read_parent(run, tmp_path)


def test_a_parent_that_does_not_fit_is_found_before_a_folder_is_made(
    tuned: Callable[..., Any], tmp_path: Path
) -> None:
    run = tuned("lora")
    spec = read(run.spec, parent=run.folder, out=tmp_path / "runs", name="child", method="bitfit")
    with pytest.raises(SpecError, match=r"a bundle of `method: lora`.* says `method: bitfit`"):
        tune(spec)
    assert not (tmp_path / "runs").exists()
    assert "says `method: bitfit`" in next(one.text for one in check(spec) if one.about == "parent")
    good = check(read(spec, method="lora"))
    assert not [one for one in good if one.state == "error"]


def read_parent(run: Run, folder: Path) -> Any:
    from penjing import run as runs

    spec = read(run.spec, parent=folder / "none", out=folder)
    return begin(runs.new(spec), opened(spec, lambda _: None), introduced=False)
