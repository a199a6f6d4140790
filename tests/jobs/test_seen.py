"""What is kept of the rows that a model was proved on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import told
from penjing.bundle import load
from penjing.data.read import read
from penjing.data.taught import same
from penjing.errors import NotSupported
from penjing.jobs.seen import FILE, measure, read_reference
from penjing.run import open_run


@pytest.fixture
def run(tuned: Callable[..., Any]) -> Any:
    return tuned("lora")


def test_a_run_keeps_what_its_bundle_sees_of_the_validation_rows(run: Any) -> None:
    bundle = run.bundle
    found = read_reference(bundle)
    assert len(found.seen) == bundle.card["reference"]["sample"]["rows"] == 10
    spec = open_run(run.folder).spec
    from penjing.jobs.prepare import rows_of, task_of

    rows = rows_of(spec, task_of(spec)).valid
    again = measure(bundle, rows, found.axes, known=found.known)
    assert again.answers == found.seen.answers == [a["label"] for a in bundle.predict(rows.texts)]
    assert again.language == found.seen.language
    for name in ("lengths", "vectors", "unknown", "unseen", "confidence"):
        wanted = np.asarray(getattr(found.seen, name), dtype=np.float64)
        assert getattr(again, name) == pytest.approx(wanted, abs=1e-5), name
    labels = [row[0] for row in rows.labels]
    assert found.seen.right is not None
    assert found.seen.right.tolist() == [
        a == b for a, b in zip(found.seen.answers or [], labels, strict=True)
    ]


def test_the_bundle_is_whole_with_it_and_refused_when_it_was_changed(run: Any, tmp_path: Path) -> None:
    import shutil

    place = shutil.copytree(run.folder / "best", tmp_path / "best")
    load(place)
    content = bytearray((place / FILE).read_bytes())
    content[-1] ^= 1
    (place / FILE).write_bytes(content)
    with pytest.raises(NotSupported) as error:
        load(place)
    told(error, FILE, "another SHA-256")


def test_no_text_is_kept(run: Any) -> None:
    kept = (run.folder / "best" / FILE).read_bytes() + (run.folder / "best" / "card.json").read_bytes()
    rows = read(run.spec.data.train)
    assert not [text for text in rows.texts if text.encode() in kept]


def test_tokens_that_were_never_learned_are_counted(run: Any) -> None:
    found = read_reference(run.bundle)
    assert found.known is not None
    strange = "".join(chr(0x4E00 + i) for i in range(5))
    from penjing.data.parts import rows_of

    seen = measure(run.bundle, rows_of([strange]), found.axes, known=found.known)
    assert seen.unknown is not None
    assert seen.unknown[0] > 0.1
    assert seen.language == ["zh"]


def test_a_bundle_without_it_says_what_to_do(run: Any, tmp_path: Path) -> None:
    import shutil

    place = shutil.copytree(run.folder / "best", tmp_path / "best")
    card = json.loads((place / "card.json").read_text())
    del card["reference"]["sample"], card["files"][FILE]
    (place / "card.json").write_text(json.dumps(card))
    with pytest.raises(NotSupported) as error:
        read_reference(load(place))
    told(error, "was to be compared", FILE, "--reference rows.csv")


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ({"label": "a"}, ["a"], True),
        ({"label": "1"}, 1, True),
        ({"labels": ["b", "a"]}, ["a", "b"], True),
        ({"labels": ["a"]}, [], False),
        ({"entities": [{"start": 0, "end": 4, "label": "x"}]}, [{"start": 0, "end": 4, "label": "x"}], True),
        ({"entities": [{"start": 0, "end": 4, "label": "x"}]}, [{"start": 1, "end": 4, "label": "x"}], False),
        (
            {"entities": [{"start": 0, "end": 4, "label": "x"}]},
            [{"start": 0, "end": 4, "label": ["x"]}],
            True,
        ),
        ({"entities": [{"start": 0, "end": 4, "label": "x"}]}, [{"label": "x"}], False),
        ({"entities": [], "intent": "a"}, {"entities": [], "intent": "b"}, False),
        ({"choice": "b", "index": 1}, 1, True),
        ({"text": "so"}, "so", None),
    ],
)
def test_an_answer_is_right_when_it_says_what_is_true(answer: Any, truth: Any, right: bool | None) -> None:
    assert same(answer, truth) is right
