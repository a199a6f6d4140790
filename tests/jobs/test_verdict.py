"""What a run comes to, in sentences, from what its folder says."""

from pathlib import Path

from penjing.jobs.reading import Facts
from penjing.jobs.sections import learning
from penjing.jobs.verdict import verdict
from penjing.jobs.words import speaker


def test_of_a_run_still_going_whose_score_falls_the_lowest_is_the_best() -> None:
    losses = ((20, 3.5), (40, 2.25), (60, 2.75))
    facts = Facts(
        Path("runs/a"),
        scores=[
            {
                "step": step,
                "split": "valid",
                "best": "loss",
                "lower": True,
                "values": {"nll": 1.0, "loss": loss},
            }
            for step, loss in losses
        ],
    )
    say = speaker("en")
    assert verdict(facts, say).sentences == ("Best on the validation rows so far: 2.250 loss, at step 40.",)
    assert learning(facts, say)[0][0].lead.startswith("Best 2.250 at step 40.")
