"""Every word of the report in English and Chinese.

`speaker(language)` gives the function that says a key; a test keeps both tables at the same keys and the same
blanks. A third language is a third table.
"""

from __future__ import annotations

from collections.abc import Callable

from penjing.errors import SpecError, nearest
from penjing.jobs import entity_words, said_words, talk_words
from penjing.jobs.chinese import CHINESE

Say = Callable[..., str]

ENGLISH: dict[str, str] = {
    # scores
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "subset_accuracy": "all labels right",
    "ece": "calibration error (ECE)",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "spearman": "Spearman's rank correlation",
    "pearson": "Pearson's correlation",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "ndcg_10": "nDCG@10",
    "mrr": "mean reciprocal rank",
    "recall_1": "recall@1",
    "recall_5": "recall@5",
    "recall_10": "recall@10",
    "recall_100": "recall@100",
    "test": "test",
    "valid": "validation",
    "train": "training",
    # the verdict
    "model_right": "The tuned model answers {score} of the {split} rows right",
    "model_score": "The tuned model reaches {score} {name} on the {split} rows",
    "cheap_one": "; the cheap baseline {score}",
    "worth": ": the large model is worth {points} points {interval}.",
    "worse": ": the baseline is {points} points {interval} better, and costs almost nothing.",
    "chance": ": the difference of {points} points {interval} may be chance.",
    "worth_plain": ": the large model is better by {points} {interval}.",
    "worse_plain": ": the baseline is better by {points} {interval}, and costs almost nothing.",
    "chance_plain": ": the difference of {points} {interval} may be chance.",
    "stop": ".",
    "worse_advice": "Serve the baseline, or give the model more rows, more steps or another base "
    "before it is served.",
    "chance_advice": "Nothing here shows that the large model is worth its cost. More test rows "
    "would narrow the doubt.",
    "one_answer": "It answers “{label}” to every row, so it learned nothing of what they hold: give it a "
    "higher rate (`train.lr`), more steps or another base, or sum up texts otherwise (`pooling: mean`).",
    "unasked": "Labels without any scored row: {n} of {all} ({names}). No score speaks of them.",
    "untested": "The difference to the baseline was not tested row by row, so take it as a rough one.",
    "on_valid": "There was no test set. The validation rows also chose the best step: expect a "
    "little less on new rows.",
    "few_rows": "Scored rows: {n}, too few to be sure of much.",
    "leaked": "{n} of these rows also stand, exactly or nearly, in the training rows, which "
    "flatters every score.",
    "gained": "Before tuning it was {score}.",
    "under_forecast": "Training took {time}; the forecast was {forecast}.",
    "claims_high": "When it claims to be sure it is too sure, by {points} points on average.",
    "claims_low": "It is right more often than it claims, by {points} points on average.",
    "claims_well": "Its confidence can be taken at its word: off by {points} points on average.",
    "running": "Not finished",
    "running_at": "This run has not finished: step {step}, loss {loss}.",
    "running_empty": "This run has not finished, and has not made a step yet.",
    "running_best": "Best on the validation rows so far: {score} {name}, at step {step}.",
    "resume": "It is going on, or was stopped from outside.",
    "go_on": "To go on from where it was saved:",
    "died": "Died",
    "died_at": "This run died after step {step}.",
    "died_early": "This run died before its first step.",
    "done": "Finished",
    "unscored": "This run finished without scores.",
    "damaged": "{file} could not be read as a whole ({n} places); what could be read is shown.",
    # tiles
    "tuned": "tuned",
    "before": "before tuning",
    "baseline": "cheap baseline",
    "time": "training time",
    "memory": "peak memory",
    "steps_taken": "{n} steps",
    "rows_n": "{n} rows",
    "fitted_in": "fitted in {time}",
    "forecast": "forecast {value}",
    "points_gain": "{points} points by tuning",
    "plain_gain": "{points} by tuning",
    "trained_of": "{n} of {total} parameters trained",
    # sections
    "scores": "Scores",
    "learning": "Learning",
    "errors": "Where it errs",
    "honesty": "How honest its confidence is",
    "data": "Data",
    "cost": "Cost",
    "repeat": "Do it again",
    "notes": "Notes",
    "error": "What went wrong",
    "about_run": "About this run",
    # figures and tables
    "score": "score",
    "interval": "95 % interval",
    "scores_figure": "{name} of the tuned model, the cheap baseline and the untuned base ({split} rows)",
    "loss": "loss",
    "loss_about": "Training loss from {first} at step {from_step} to {last} at step {to_step}; a "
    "lower one is better.",
    "loss_smooth": "training, smoothed",
    "loss_raw": "each step",
    "valid_loss": "validation",
    "parts": "parts of the loss",
    "score_figure": "{name} on the validation rows",
    "score_about": "Best {best} at step {step}. Whiskers are 95 % intervals.",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "step": "step",
    "more_curves": "Learning rate, gradient norm, parts of the loss",
    "curve_about": "From {low} to {high}.",
    "class_figure": "F1 of the {n} weakest classes",
    "class_figure_all": "F1 of every class",
    "class_about": "Weakest: {label} with {score}.",
    "all_classes": "All {n} classes",
    "label": "label",
    "precision": "precision",
    "recall": "recall",
    "class_f1": "F1",
    "nearest label name, untuned base": "nearest label name, untuned base",
    "the untuned base, asked the same": "the untuned base, asked the same",
    "support": "rows",
    "heat_figure": "Which class was taken for which",
    "heat_figure_part": "Which class was taken for which: the {n} with the most errors",
    "heat_about": "Rows are the truth, columns the answers. Numbers are rows; the pairs most often "
    "confused are listed below.",
    "truth": "truth",
    "answer": "answer",
    "pairs": "Most often confused",
    "pair": "{truth} taken for {answer}",
    "of_its_rows": "{count} of {total} rows",
    "no_errors": "No row was answered wrongly.",
    "worst": "Surest mistakes",
    "worst_lead": "Rows where the model was surest and wrong. At times it is the given label that errs.",
    "furthest": "Furthest off",
    "furthest_lead": "Rows whose number the model missed by most. At times it is the given number that errs.",
    "off_by": "off by {by} of its spread",
    "agreement_figure": "Predicted against true: {name}",
    "agreement_about": "A dot is a row; on the dashed line the prediction is the truth.",
    "per_number": "Each number by itself",
    "number": "number",
    "predicted_axis": "predicted",
    "given": "given",
    "predicted": "model",
    "likely": "more likely",
    "sure": "{score} sure",
    "nothing": "none",
    "reliability_figure": "Share right against claimed confidence",
    "reliability_about": "A dot on the dashed line keeps its word; below it claims too much. The "
    "larger a dot, the more rows.",
    "confidence": "claimed confidence",
    "share_right": "share right",
    "source": "source",
    "rows": "rows",
    "labels": "labels",
    "labels_figure": "Rows of each label",
    "labels_figure_part": "Rows of each label: the {n} most frequent of {total}",
    "labels_about": "From {least} to {most} rows a label.",
    "lengths": "lengths",
    "lengths_figure": "Length of the rows",
    "lengths_about": "Number of rows by length.",
    "tokens": "tokens",
    "duplicates": "duplicates",
    "leaks": "leaks",
    "suspects": "Labels to look at again",
    "suspects_lead": "Rows whose given label a quick model, trained on the other rows, does not believe.",
    "classes": "labels in use",
    "imbalance": "largest over smallest label",
    "words_a_row": "words a row: middle, 95 %, longest",
    "tokens_a_row": "tokens a row: middle, 95 %, longest",
    "exact": "exact repeats",
    "near": "near repeats",
    "conflicts": "same text, other label (rows)",
    "blank": "without a letter or digit",
    "long": "too long for most bases",
    "leak": "rows of {to} that are in {source} too: {exact} exactly, {near} nearly",
    "no_leaks": "No row of one set was found in another.",
    "examples": "Examples: repeats, conflicts and leaks",
    "seconds": "time",
    "tokens_per_s": "tokens per second",
    "rows_per_s": "rows per second",
    "peak_mib": "peak memory",
    "peak_share": "share of the machine's matrix peak",
    "steps": "steps",
    "stopped": "stopped because",
    "measured": "measured",
    "forecast_name": "forecast",
    "asked": "What was asked: spec.yaml",
    "repeat_lead": "Every default is written out in the spec beside this report. Run where "
    "the run was started, this repeats it:",
    "first_command": "It was started by",
    "base": "base",
    "task": "task",
    "method": "method",
    "techniques": "techniques",
    "device": "device",
    "precision_name": "precision",
    "threads": "threads",
    "seed": "seed",
    "started": "started",
    "parent": "parent",
    "versions": "versions",
    "parameters": "parameters",
    "how": "How these numbers are made",
    "how_text": "Intervals are 95 % bootstrap intervals (rows drawn with replacement 1,000 "
    "times); the difference to the "
    "baseline is drawn in pairs, on the same rows. Macro F1 is the mean over the classes "
    "that appear. ECE uses 15 bins "
    "of equal width. The baseline is TF-IDF with a linear model (BM25 where texts are searched), fitted on "
    "the same training rows.",
    "how_see": "Intervals are 95 % bootstrap intervals (images drawn with replacement 1,000 times); the "
    "difference to the baseline is drawn in pairs, on the same images. Macro F1 is the mean over the "
    "classes that appear. ECE uses 15 bins of equal width. Images are scored whole, as the base's image "
    "processor prepares them. The baseline is logistic regression on a thumbnail of 8 x 8 pixels and a "
    "histogram of 64 colours, fitted on the same training images.",
    "how_masked_image": "The loss is the objective's own on held-out images, whose hidden patches are drawn "
    "once and are the same at every validation.",
    "private": "This page quotes rows of the data: share it with those who may read them.",
    # units
    "hours": "{h} h {m} min",
    "minutes": "{m} min {s} s",
    "only_minutes": "{m} min",
    "only_seconds": "{s} s",
}

LANGUAGES = {
    "en": ENGLISH | entity_words.ENGLISH | said_words.ENGLISH | talk_words.ENGLISH,
    "zh": CHINESE | entity_words.CHINESE | said_words.CHINESE | talk_words.CHINESE,
}


def capital(words: str) -> str:
    """With a capital at the front, as the first word of a line."""
    return words[:1].upper() + words[1:]


def speaker(language: str) -> Say:
    """`say(key, **blanks)`: the words of a key; one that is not in the table (a score of the user's) says
    itself.

    Raises:
        SpecError: no such language.
    """
    if language not in LANGUAGES:
        raise SpecError(
            f"The report can be written in {', '.join(LANGUAGES)}; `language` is `{language}`."
            f"{nearest(language, LANGUAGES)} Choose one of them."
        )
    table = LANGUAGES[language]
    return lambda key, **blanks: table[key].format(**blanks) if key in table else key
