"""Parity: equal bundles agree to the bit, a changed one is refused with what differs, and the certificate
says what was replayed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common import told
from penjing.bundle import Bundle, load
from penjing.errors import DataError, NotSupported
from penjing.jobs.merge import merge
from penjing.jobs.parity import Tolerance, compare, invariance, refuse
from penjing.jobs.replay import held_out, part_of

Tuned = Callable[..., Any]


@pytest.fixture(scope="module")
def bundle(tuned: Tuned) -> Bundle:
    return load(tuned("lora").folder)


def changed(bundle: Bundle, by: float) -> Bundle:
    """Another copy of the bundle whose head's weights are moved."""
    other = load(bundle.folder)
    with torch.no_grad():
        other.model.head.out.weight += by * torch.randn_like(other.model.head.out.weight)
    return other


@pytest.mark.slow
def test_a_bundle_equals_itself_to_the_bit_and_the_certificate_says_what_was_replayed(
    bundle: Bundle, tmp_path: Path
) -> None:
    rows, notes = held_out(bundle)
    found = compare(bundle, load(bundle.folder), rows)
    assert found.held
    assert not notes
    (tmp_path / "weights").write_text("w")
    kept = json.loads(found.keep(tmp_path, target="hf").read_text(encoding="utf-8"))
    assert kept["outputs"]["largest_difference"] == 0.0 == kept["edges"]["largest_difference"]
    assert kept["rows"]["held_out"] == len(rows) == 10
    assert kept["rows"]["edges"] == ["empty", "one character", "emoji", "Chinese", "signs", "longest"]
    assert kept["score"]["lost"] == 0.0
    assert kept["answers"] == {"n": 16, "alike": 1.0, "unlike": []}
    assert set(kept["files"]) == {"weights"}
    assert (kept["held"], kept["target"]) == (True, "hf")
    assert kept["machine"]["cpu"]
    assert kept["versions"]["torch"]


@pytest.mark.slow
def test_a_merged_bundle_has_parity(bundle: Bundle, tmp_path: Path) -> None:
    found = compare(bundle, merge(bundle.folder, tmp_path / "whole"), held_out(bundle)[0])
    assert found.held, found.broken
    assert 0 < found.facts["outputs"]["of_largest_output"] < 1e-4


@pytest.mark.slow
def test_a_changed_head_is_refused_and_the_error_says_how_much(bundle: Bundle) -> None:
    rows, _ = held_out(bundle)
    found = compare(bundle, changed(bundle, 2.0), rows)
    with pytest.raises(NotSupported) as error:
        refuse(found, "An ONNX file in /somewhere")
    told(
        error,
        "An ONNX file in /somewhere",
        "classify",
        "differ by up to",
        "least cosine",
        "tickets.csv, line",
    )
    lenient = Tolerance(difference=None, cosine=None, answers=None, lost=None)
    assert compare(bundle, changed(bundle, 2.0), rows, tolerance=lenient).held


def test_the_largest_difference_is_that_of_the_outputs_themselves(bundle: Bundle) -> None:
    other = load(bundle.folder)
    with torch.no_grad():
        other.model.head.out.bias[0] += 0.25
    outputs = compare(bundle, other, held_out(bundle)[0]).facts["outputs"]
    assert outputs["largest_difference"] == pytest.approx(0.25, abs=1e-6)


def test_outputs_that_depend_on_who_shares_the_batch_are_found(bundle: Bundle) -> None:
    part = part_of(bundle, held_out(bundle)[0], labelled=True)
    assert invariance(bundle, part) == pytest.approx(1.0, abs=1e-6)
    other = load(bundle.folder)
    plain = other.model.head.forward
    turned = torch.tensor([1.0, -1.0, 1.0])
    other.model.head.forward = lambda states, sizes: plain(states, sizes) * (turned if len(sizes) > 1 else 1)
    assert invariance(other, part) < 0.9
    found = compare(other, other, held_out(bundle)[0])
    assert not found.held
    assert "depend on who shares its batch" in found.broken[0]


def test_a_bundle_outside_a_run_asks_for_rows(bundle: Bundle, tmp_path: Path) -> None:
    whole = merge(bundle.folder, tmp_path / "whole")
    with pytest.raises(DataError) as error:
        held_out(whole)
    told(error, "Held-out rows", str(tmp_path / "whole"), "lies in no run", "--rows FILE")


def test_rows_that_are_gone_are_asked_for_again(bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(bundle.folder.parent, tmp_path / "run")
    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("tickets.csv", "gone.csv"))
    with pytest.raises(DataError) as error:
        held_out(dataclasses.replace(bundle, folder=folder / "best"))
    told(error, "gone.csv", "cannot be read any more", "--rows FILE")
