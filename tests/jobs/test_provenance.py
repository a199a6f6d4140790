"""Where a run comes from, and how to repeat it."""

from pathlib import Path

import pytest

from penjing.jobs.provenance import commands
from penjing.jobs.reading import Facts


@pytest.mark.parametrize(
    ("name", "ending"),
    [(None, "spec.yaml"), ("first try", "--name 'first try-again'"), ("a", "--name a-again")],
)
def test_a_named_run_is_repeated_under_another_name(name: str | None, ending: str) -> None:
    facts = Facts(Path("runs/a"), spec_text="task: classify", spec={"task": "classify", "name": name})
    repeat, _, _ = commands(facts)
    assert repeat.startswith("penjing tune runs/a/spec.yaml")
    assert repeat.endswith(ending)
