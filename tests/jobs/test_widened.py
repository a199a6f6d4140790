"""A head for other labels than it learned: the old ones are answered as before, the new ones never."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import told
from conftest import tickets
from penjing import tune
from penjing.bundle import Bundle
from penjing.errors import NotSupported
from penjing.jobs.training import begin, opened
from penjing.jobs.widened import put_by_name, widened
from penjing.models.heads import ClassHead
from penjing.spec import read

TEXTS = [text for text, _ in tickets(12)]
LEARN = {"device": "cpu", "precision": "fp32", "evals": 1}


def tagged(folder: Path, *, more: bool = False) -> str:
    """Rows with an entity each and an intent; with `more` a label and an intent that come before old ones."""
    rows = []
    for i, (text, label) in enumerate(tickets(24)):
        word = next(word for word in text.split() if len(word) > 3)
        at = text.index(word)
        kind = "aim" if more and i % 4 == 0 else "thing"
        spans = [{"start": at, "end": at + len(word), "label": kind}]
        rows.append({"text": text, "entities": spans, "intent": "abuse" if kind == "aim" else label})
    path = folder / f"rows{more}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("decode", ["bio", "span"])
@pytest.mark.slow
def test_a_tagger_that_heard_of_more_labels_answers_as_before_and_begins_a_run_so(
    decode: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    task = {"tag": {"decode": decode, "intent": True, "crf": decode == "bio"}}
    base = tiny("bert")
    run = tune(
        base=base, train=tagged(tmp_path), task=task, method="lora", steps=4, lr=0.01, out=tmp_path, **LEARN
    )
    before, head = run.bundle.predict(TEXTS), run.bundle.model.head
    spec = read(run.spec, train=tagged(tmp_path, more=True), parent=run.folder, name="more", steps=1)
    from penjing import run as runs

    it = begin(runs.new(spec), opened(spec, lambda _: None), introduced=False)
    assert it.job.data.names[0] == "aim"
    ours = Bundle(run.folder, {**run.bundle.card, "labels": it.job.data.names}, it.made.model.eval(),
                  it.job.task, it.job.base, it.job.machine)  # fmt: skip
    theirs = widened(run.bundle, it.job.data.names)
    again = theirs.predict(TEXTS)
    for old, new in zip(before, again, strict=True):
        assert [(e["start"], e["end"], e["label"]) for e in new["entities"]] == [
            (e["start"], e["end"], e["label"]) for e in old["entities"]
        ]
        assert (new["intent"], new["confidence"]) == (old["intent"], pytest.approx(old["confidence"]))

    wide = ours.model.head
    place = it.job.task.outlets(it.job.data.names)[0]
    known = it.job.task.outlets(run.bundle.labels)[0]
    for i, name in enumerate(known):
        assert np.array_equal(wide.out.weight[place.index(name)].detach(), head.out.weight[i].detach()), name
    if decode == "bio":
        both = [place.index(name) for name in known]
        assert np.array_equal(wide.moves[both][:, both].detach(), head.moves.detach())


def test_thresholds_of_several_labels_go_along_by_name(tiny: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"text": text, "label": [label, "b"][: 1 + i % 2]} for i, (text, label) in enumerate(tickets(24))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"classify": {"multi_label": True}}
    run = tune(
        base=tiny("bert"),
        train=tmp_path / "rows.jsonl",
        task=task,
        method="lora",
        steps=2,
        out=tmp_path,
        **LEARN,
    )
    before, old = run.bundle.predict(TEXTS), run.bundle
    new = widened(run.bundle, ["a", *reversed(old.labels)])
    assert new.card["chosen"]["thresholds"] == [0.5, *reversed(old.card["chosen"]["thresholds"])]
    for one, other in zip(before, new.predict(TEXTS), strict=True):
        assert {*one["labels"]} == {*other["labels"]}
        assert other["scores"].pop("a") == 0
        assert other["scores"] == pytest.approx(one["scores"])


def test_a_head_of_another_shape_is_refused(tuned: Callable[..., Any]) -> None:
    bundle = tuned("lora").bundle
    head = ClassHead(bundle.base.width + 1, 4, pooling="mean", dropout=0.0)
    with pytest.raises(NotSupported) as error:
        put_by_name(bundle.folder / "head.safetensors", head, [bundle.labels], [[*bundle.labels, "new"]])
    told(error, "holds was to be learned further", "leave `parent` out")
