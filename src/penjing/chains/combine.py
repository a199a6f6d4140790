"""What several models make together: ensembles (mean, vote, stack) and soups, judged on validation rows.

A stack is judged by its answers on folds it did not learn from; mean and vote learn nothing; a soup is one
model of averaged weights. The single best model stands until one of them beats it by more than two standard
errors of the paired difference: several models cost several times as much.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.bundle import Bundle
from penjing.bundle_card import MIX
from penjing.engine.scoring import outputs
from penjing.files import new_folder, sha256, write_json
from penjing.models.ensemble import combined, features
from penjing.records import Rows
from penjing.task import Task

FOLDS = 5
STRENGTH = 0.1  # C of the stack's logistic regression: M C inputs want a strong pull to zero


@dataclass(frozen=True)
class Member:
    """A bundle that might be a part, with its (S, C) logits of the validation rows; `found` in their place
    where the task predicts in its own way, such as entities, which cannot be averaged. `targets`: those of
    the rows as it reads them."""

    name: str
    folder: Path
    card: dict[str, Any]
    logits_SC: Tensor | None
    found: Any = None
    targets: Any = None


@dataclass(frozen=True)
class Candidate:
    """One way to answer: its validation score, and its gain over the single best with one standard error;
    both 0 where the task compares no answers."""

    name: str
    way: str  # single, mean, vote, stack or soup
    members: tuple[Member, ...]
    folder: Path  # of the one bundle it is, or of its first member
    tuned: dict[str, Any]  # what the task chose on validation rows, such as thresholds
    score: float
    gain: float = 0.0
    error: float = 0.0
    mix: nn.Linear | None = None

    @property
    def better(self) -> bool:
        """True where the gain is more than two standard errors: several candidates have a try."""
        return self.gain > 2 * self.error

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        names = [member.name for member in self.members]
        kept = {"name": self.name, "way": self.way, "members": names, "score": self.score}
        return {**kept, "gain": self.gain, "error": self.error}


def member(name: str, bundle: Bundle, rows: Rows) -> Member:
    """A bundle's answers on the validation rows."""
    part, own = bundle.part(rows), (name, bundle.folder, bundle.card)
    if bundle.task.infer:
        return Member(*own, None, bundle.infer(part), part.targets)
    return Member(*own, outputs(bundle.model, part.tokens), None, part.targets)


@dataclass(frozen=True)
class Judge:
    """Scores candidates on the validation rows, all against the same single model."""

    task: Task
    targets: np.ndarray
    names: list[str]
    seed: int
    single: Member

    def worth(self, one: Candidate) -> float:
        """Its score, higher being better."""
        return -one.score if self.task.lower else one.score

    def alone(self, one: Member) -> Candidate:
        """One model."""
        return self._candidate(one.name, "single", (one,), self._found(one))

    def soup(self, name: str, members: Sequence[Member], cooked: Member) -> Candidate:
        """One model of several models' weights."""
        return self._candidate(name, "soup", members, self._found(cooked), folder=cooked.folder)

    def together(self, name: str, members: Sequence[Member]) -> list[Candidate]:
        """Every way to combine these members; none where their answers cannot be averaged. Numbers are no
        votes; a stack needs one label a row and some rows of each."""
        logits = [one.logits_SC for one in members if one.logits_SC is not None]
        of, p = self.task.outputs, self.task.probabilities
        if len(logits) < len(members) or not of:
            return []
        logits_MSC = torch.stack(logits)
        found = [
            self._candidate(f"{name}, {way}", way, members, p(combined(logits_MSC, way, of=of)))
            for way in (("mean",) if of == "numbers" else ("mean", "vote"))
        ]
        if of == "classes" and self.targets.ndim == 1 and _enough(self.targets, len(self.names)):
            inputs = features(logits_MSC).numpy()
            mix, logits_SC = stacked(inputs, self.targets, len(self.names), self.seed)
            found.append(self._candidate(f"{name}, stack", "stack", members, p(logits_SC), mix=mix))
        return found

    def _found(self, one: Member) -> Any:
        """What a member predicts, as the task sees it."""
        return one.found if one.logits_SC is None else self.task.probabilities(one.logits_SC)

    def _candidate(
        self,
        name: str,
        way: str,
        members: Sequence[Member],
        ours: Any,
        *,
        mix: nn.Linear | None = None,
        folder: Path | None = None,
    ) -> Candidate:
        task, targets, theirs = self.task, self.targets, self._found(self.single)
        tuned = task.tune(ours, targets)
        score = task.score(ours, targets, self.names, tuned, self.seed).values[task.best]
        gain = error = 0.0
        if task.difference is not None:
            theirs_tuned = task.tune(theirs, targets)
            mean, (low, high) = task.difference(ours, theirs, targets, tuned, theirs_tuned, self.seed)
            gain, error = -mean if task.lower else mean, (high - low) / (2 * 1.96)
        return Candidate(
            name, way, tuple(members), folder or members[0].folder, tuned, score, gain, error, mix
        )


def _enough(targets: np.ndarray, n_classes: int) -> bool:
    """Rows to learn a stack from: two of every class, four in the mean."""
    counts = np.bincount(targets, minlength=n_classes)
    return bool(counts.min() >= 2 and len(targets) >= 4 * n_classes)


def stacked(inputs: np.ndarray, targets: np.ndarray, n_classes: int, seed: int) -> tuple[nn.Linear, Tensor]:
    """(layer, logits): a logistic regression on all rows, and answers of ones that had not seen the row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    def fitted(rows: np.ndarray) -> nn.Linear:
        model = LogisticRegression(C=STRENGTH, max_iter=500).fit(inputs[rows], targets[rows])
        layer = nn.Linear(inputs.shape[1], n_classes)
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn gives one row for two classes
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.fill_(-20.0)  # a class that these rows lack
            layer.weight[model.classes_] = torch.from_numpy(weight).float()
            layer.bias[model.classes_] = torch.from_numpy(bias).float()
        return layer.requires_grad_(False)

    n_folds = min(FOLDS, int(np.bincount(targets, minlength=n_classes).min()))
    logits = torch.zeros(len(targets), n_classes)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for kept, held in folds.split(inputs, targets):
        logits[held] = fitted(kept)(torch.from_numpy(inputs[held]).float())
    return fitted(np.arange(len(targets))), logits


def save_ensemble(folder: Path, chosen: Candidate, best: str) -> None:
    """Write a candidate as one bundle: its members' folders, what mixes them, and a card.

    `best` names the score that the card gives.
    """
    from safetensors.torch import save_file

    first = chosen.members[0].card
    alike = ("format", "task", "labels", "max_length", "base", "precision", "reference", "reading")
    with new_folder(folder) as aside:
        places = []
        for i, one in enumerate(chosen.members):
            places.append(f"members/{i}")
            shutil.copytree(one.folder, aside / places[-1])
        if chosen.mix is not None:
            save_file({k: v.contiguous() for k, v in chosen.mix.state_dict().items()}, aside / MIX)
        files = {f.relative_to(aside).as_posix(): sha256(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        card = {
            **{key: first[key] for key in alike if key in first},
            "saves": "ensemble",
            "way": chosen.way,
            "members": places,
            "parts": chosen.plain()["members"],
            "method": f"{chosen.way} of {len(places)} models",
            "chosen": chosen.tuned,
            "scores": {"valid": {best: chosen.score}},
            "files": files,
        }
        write_json(aside / "card.json", card)
