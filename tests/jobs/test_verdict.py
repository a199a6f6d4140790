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


def judged(counts: list[list[int]]) -> str:
    result = {
        "task": "classify",
        "splits_scored": "test",
        "best_name": "accuracy",
        "after": {
            "values": {"accuracy": 0.6},
            "tables": {"confusion": {"labels": ["good", "bad"], "counts": counts}},
        },
    }
    return verdict(Facts(Path("runs/a"), result=result), speaker("en")).advice


def test_a_model_that_answers_one_label_to_every_row_is_said_to_have_learned_nothing() -> None:
    assert judged([[0, 16], [0, 24]]).startswith("It answers “bad” to every row")
    assert judged([[1, 15], [0, 24]]) == ""
    assert "It answers" not in judged([[0, 0], [0, 40]]), "all rows are of that label"
    assert judged([[0, 4], [0, 6]]) == "", "too few rows to tell"


def test_labels_without_scored_rows_are_told() -> None:
    said = judged([[0, 0], [0, 40]])
    assert said == "Labels without any scored row: 1 of 2 (good). No score speaks of them."
    assert judged([[1, 0], [0, 40]]) == ""
