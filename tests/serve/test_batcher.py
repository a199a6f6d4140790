"""Requests of many bundles share passes, and none of them notices."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penjing.errors import DataError, NotSupported
from penjing.serve import batcher as batching
from penjing.serve.asked import Busy, Closing, Late
from penjing.serve.batcher import Batcher, pick
from penjing.serve.job import Job
from penjing.serve.models import Models
from serving import TEXTS, alone, anew, near

PAIRS = [[a, b] for a, b in pairwise(TEXTS)]


@pytest.fixture(scope="module")
def models(shelf: Path) -> Models:
    return Models(shelf, device="cpu")


@pytest.fixture
def batcher(models: Models) -> Iterator[Batcher]:
    made = Batcher(models.lanes, tokens=60)
    yield made
    made.close(within_s=20)


@pytest.mark.slow
def test_every_answer_in_mixed_traffic_is_the_one_given_alone(models: Models, batcher: Batcher) -> None:
    names = ["support", "topics", "names", "search", "pairs", "whole", "biases", "prefixed"]
    asked = []
    for i, name in enumerate(names * 3):
        texts = PAIRS if name == "pairs" else TEXTS
        asked.append((name, texts[i % 3 : 1 + i % 3 + i % 4]))
    jobs = [
        batcher.submit(models.open(models.choose(name).version), "predict", inputs, within_s=60)
        for name, inputs in asked
    ]
    batcher.start()  # all of them wait by now, so they share passes
    for (name, inputs), job in zip(asked, jobs, strict=True):
        found = job.future.result(60)[0]
        assert near(alone(job.opened, inputs), found), name
    passes = batcher.drain_passes()
    n_sequences = sum(n for n, _, _ in passes)
    assert len(passes) < n_sequences / 2, "they did not share passes"
    assert max(n for _, n, _ in passes) <= 60


def test_adapters_on_one_base_share_a_pass_and_its_weights(models: Models, monkeypatch: Any) -> None:
    opened = [models.open(models.choose(name).version) for name in ("support", "topics", "names", "search")]
    lanes = {models.lanes.of(one) for one in opened}
    assert len(lanes) == 1
    words = [
        next(p for n, p in one.bundle.model.named_parameters() if "word_embeddings" in n) for one in opened
    ]
    assert len({p.data_ptr() for p in words}) == 1
    made = Batcher(models.lanes, tokens=4096)
    jobs = [made.submit(one, "predict", TEXTS, within_s=60) for one in opened]
    calls = []
    shared = next(iter(lanes)).mixed
    assert shared is not None
    run = shared.states
    monkeypatch.setattr(
        shared, "states", lambda owners, batches: calls.append(owners) or run(owners, batches)
    )
    made.start()
    assert all(len(job.future.result(60)[0]) == len(TEXTS) for job in jobs)
    assert [sorted(owners) for owners in calls] == [[0, 1, 2, 3]]
    made.close()


def test_vectors_equal_those_of_the_bundle_and_others_make_none(models: Models, batcher: Batcher) -> None:
    opened = models.open(models.choose("search").version)
    batcher.start()
    found = batcher.submit(opened, "embed", TEXTS, within_s=60).future.result(60)[0]
    assert np.allclose(np.stack(found), anew(opened.version.folder).embed(TEXTS), atol=1e-5)
    with pytest.raises(NotSupported, match="Vectors of texts"):
        batcher.submit(
            models.open(models.choose("support").version), "embed", TEXTS, within_s=60
        ).future.result(60)


def test_bad_input_fails_by_itself(models: Models, batcher: Batcher) -> None:
    opened = models.open(models.choose("support").version)
    good = batcher.submit(opened, "predict", TEXTS, within_s=60)
    bad = batcher.submit(opened, "predict", ["fine", 3], within_s=60)
    batcher.start()
    with pytest.raises(DataError, match="item 2 of 2 is int"):
        bad.future.result(60)
    assert len(good.future.result(60)[0]) == len(TEXTS)
    assert batcher.waiting == 0


def test_a_pass_that_fails_fails_only_the_request_at_fault(
    models: Models, batcher: Batcher, monkeypatch: Any
) -> None:
    opened = models.open(models.choose("support").version)
    lane = models.lanes.of(opened)
    run = lane.states

    def broken(asks: Any) -> Any:
        if any(len(batch.rows) and (batch.lengths > 25).any() for _, batch in asks):
            raise RuntimeError("no memory for so long a row")
        return run(asks)

    monkeypatch.setattr(lane, "states", broken)
    monkeypatch.setattr(batching.LOG, "exception", lambda *said: None)
    batcher.tokens = 4096
    jobs = [batcher.submit(opened, "predict", [text], within_s=60) for text in TEXTS]
    batcher.start()
    failed = [i for i, job in enumerate(jobs) if job.future.exception(60) is not None]
    assert failed == [2]


def test_a_full_queue_refuses_and_says_when_to_come_back(models: Models) -> None:
    opened = models.open(models.choose("support").version)
    made = Batcher(models.lanes, most=100)
    made.submit(opened, "predict", TEXTS, within_s=60)
    with pytest.raises(Busy, match="tokens wait") as refused:
        made.submit(opened, "predict", TEXTS * 9, within_s=60)
    assert 0 < refused.value.wait_s <= 60
    made.pace = 1.0  # so slow that the deadline would pass
    with pytest.raises(Busy):
        made.submit(opened, "predict", ["no"], within_s=5)


def test_a_long_text_that_is_cut_teaches_nothing_of_others(models: Models, batcher: Batcher) -> None:
    opened = [models.open(models.choose(name).version) for name in ("support", "topics")]
    before = [batcher.guess(one, ["x" * 3000]) for one in opened]
    batcher.start()
    for _ in range(5):
        batcher.submit(opened[0], "predict", ["card " * 20_000], within_s=60).future.result(60)
    assert batcher.guess(opened[0], ["x" * 3000]) > before[0] / 3
    assert batcher.guess(opened[1], ["x" * 3000]) == before[1], "what one is asked says nothing of another"


def test_an_images_bytes_are_no_tokens(models: Models) -> None:
    opened, batcher = models.open(models.choose("support").version), Batcher(models.lanes)
    assert batcher.guess(opened, [b"x" * 1_000_000]) == batcher.guess(opened, [b"x"]) == 200


def test_a_deadline_that_has_passed_costs_no_pass(models: Models, batcher: Batcher) -> None:
    opened = models.open(models.choose("support").version)
    late = batcher.submit(opened, "predict", TEXTS, within_s=0.01)
    time.sleep(0.05)
    batcher.start()
    with pytest.raises(Late):
        late.future.result(60)
    assert batcher.drain_passes() == []


def test_closing_finishes_what_was_taken_and_takes_nothing_more(models: Models) -> None:
    opened = models.open(models.choose("support").version)
    made = Batcher(models.lanes, tokens=20)
    jobs = [made.submit(opened, "predict", TEXTS, within_s=60) for _ in range(5)]
    made.start()
    assert made.close()
    assert all(len(job.future.result(0)[0]) == len(TEXTS) for job in jobs)
    with pytest.raises(Closing):
        made.submit(opened, "predict", TEXTS, within_s=60)


@pytest.mark.slow
def test_a_bundle_put_away_still_answers_what_it_took(shelf: Path) -> None:
    models = Models(shelf, device="cpu", hot=2)
    made = Batcher(models.lanes)
    opened = [models.open(models.choose(name).version) for name in ("support", "topics")]
    jobs = [made.submit(one, "predict", TEXTS, within_s=60) for one in opened]
    models.open(models.choose("names").version)  # takes the place of support
    assert models.opened(opened[0].version) is None
    made.start()
    for one, job in zip(opened, jobs, strict=True):
        assert near(alone(one, TEXTS), job.future.result(60)[0])
    made.close()
    gone = weakref.ref(opened[0])
    del opened, jobs, one, job
    gc.collect()
    assert gone() is None, "a bundle that was put away is still held"


@pytest.mark.slow
def test_bundles_open_and_close_while_others_are_asked(shelf: Path) -> None:
    models = Models(shelf, device="cpu", hot=2)
    made = Batcher(models.lanes)
    made.start()
    names = ["support", "topics", "search", "names"]
    wanted = {name: alone(shelf / name / "1", TEXTS) for name in names}
    errors: list[str] = []

    def ask(seed: int) -> None:
        for i in range(4):
            name = names[(seed + i) % 4]
            found = made.submit(models.open(models.choose(name).version), "predict", TEXTS, within_s=60)
            if not near(wanted[name], found.future.result(60)[0]):
                errors.append(name)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()
    assert not errors
    assert models.n_open == 2


class _Sized:
    """A request of which only the lengths matter."""

    def __init__(self, lengths: list[int], turn: float) -> None:
        self.lengths, self.turn = np.array(lengths), turn
        self.left = np.arange(len(lengths))
        self.n_left = sum(lengths)


def picked(jobs: list[Any], tokens: int) -> dict[int, list[int]]:
    return {jobs.index(job): sorted(job.lengths[which].tolist()) for job, which in pick(jobs, tokens)}


def test_a_pass_takes_the_first_requests_longest_row_and_those_of_like_length() -> None:
    jobs: list[Any] = [_Sized([9, 3], 1.0), _Sized([8, 30, 7], 2.0), _Sized([2, 10], 3.0)]
    assert picked(jobs, 24) == {0: [9], 1: [7, 8]}
    assert picked(jobs, 40) == {0: [3, 9], 1: [7, 8], 2: [2, 10]}
    assert picked(jobs, 5) == {0: [9]}, "a row longer than the budget has a pass of its own"
    assert sum(map(sum, picked(jobs, 69).values())) == 69


def test_who_has_had_much_waits_for_who_has_had_nothing() -> None:
    large: Any = object.__new__(Job)
    large.arrived, large.cost_s = 10.0, 2.0
    small: Any = object.__new__(Job)
    small.arrived, small.cost_s = 11.0, 0.0
    assert small.turn < large.turn
    small.arrived = 13.0
    assert large.turn < small.turn


def test_inference_keeps_no_graph(models: Models, batcher: Batcher) -> None:
    opened = models.open(models.choose("support").version)
    seen = []
    opened.bundle.model.head.register_forward_hook(lambda m, args, out: seen.append(out.requires_grad))
    batcher.start()
    batcher.submit(opened, "predict", ["no"], within_s=60).future.result(60)
    assert seen == [False]
    assert not torch.is_inference_mode_enabled()
