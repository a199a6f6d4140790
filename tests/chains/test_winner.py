"""Which trials may win a search, by what its journal holds."""

from pathlib import Path

from penjing.chains.halving import Halving
from penjing.chains.journal import Journal
from penjing.chains.trial import Outcome
from penjing.chains.winner import ranking, trials_of
from penjing.run import Run


def journal(folder: Path, *outcomes: Outcome) -> Journal:
    found = Journal(Run(folder), Halving(2, 2))
    for one in outcomes:
        found.begin(one.trial, one.rung, {"train.lr": one.trial})
        found.end(one, 1.0)
    return found


def test_trials_that_came_further_go_before_better_ones(tmp_path: Path) -> None:
    found = journal(tmp_path, Outcome(0, 0, score=0.9), Outcome(1, 0, score=0.5), Outcome(1, 1, score=0.6))
    assert ranking(found) == [1, 0]


def test_a_trial_that_failed_after_its_first_rung_is_no_winner_and_stands_last(tmp_path: Path) -> None:
    found = journal(
        tmp_path,
        Outcome(0, 0, score=0.9),
        Outcome(1, 0, score=0.5),
        Outcome(0, 1, failed="The loss at step 3 is nan"),
    )
    assert ranking(found) == [1]
    assert [one["trial"] for one in trials_of(found)] == [1, 0]
