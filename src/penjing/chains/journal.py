"""`search.jsonl`: what a search decided and what came of it, a line each, in the order it happened.

All that a search knows is read from here, so a search that was killed goes on as if it had not been: finished
legs are not repeated, begun ones go on from their last saved state.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import Any

from penjing.chains.halving import Halving
from penjing.chains.sampling import Tried
from penjing.chains.space import Settings
from penjing.chains.trial import Outcome
from penjing.files import write_text
from penjing.run import Run

NAME = "search.jsonl"


@dataclass
class Journal:
    """The lines of a search and what follows from them."""

    run: Run
    halving: Halving
    settings: list[Settings] = field(default_factory=list)  # by trial
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)  # by trial, in order of rungs
    open: list[tuple[int, int]] = field(default_factory=list)  # (trial, rung) begun and not ended
    seconds: float = 0.0  # wall clock of the search so far
    at_once: int = 0  # trials on their way at a time; 0: not settled

    freed: int = 0  # bytes, by `prune`
    _pruned: set[int] = field(default_factory=set)

    def settle(self, at_once: int) -> None:
        """How many trials are on their way at a time: it decides who is promoted, wherever this goes on."""
        self._write({"at_once": at_once})

    def begin(self, trial: int, rung: int, settings: Settings) -> None:
        """A leg begins: a new trial, or one that goes on to a rung."""
        self._write({"begun": trial, "rung": rung, "settings": settings})

    def end(self, outcome: Outcome, seconds: float) -> None:
        """A leg has ended, after so many seconds of the whole search."""
        self._write({"ended": asdict(outcome), "seconds": seconds})

    def prune(self, n_trials: int) -> None:
        """Delete the saved states (`last/`) of trials that will not go on, of at most `n_trials`; what they
        took is counted in `freed`. A trial without one would begin anew and come to the same.
        """
        for trial in self.halving.lost(n_trials) - self._pruned:
            self._pruned.add(trial)
            for folder in (self.run.folder / "trials").glob(f"{trial:03d}*/last"):
                self.freed += sum(path.stat().st_size for path in folder.iterdir())
                shutil.rmtree(folder)

    def tried(self) -> list[Tried]:
        """The trials as samplers see them."""
        found = []
        for trial, settings in enumerate(self.settings):
            scores = [o.score for o in self.outcomes.get(trial, []) if o.score is not None]
            found.append(Tried(settings, tuple(scores), len(scores) == self.halving.n_rungs))
        return found

    def _write(self, line: dict[str, Any]) -> None:
        self.run.append(NAME, line)
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "at_once" in line:
            self.at_once = line["at_once"]
            return
        if "begun" in line:
            trial, rung = line["begun"], line["rung"]
            if rung == 0:
                self.settings.append(line["settings"])
            else:
                self.halving.promote(trial, rung - 1)
            self.open.append((trial, rung))
            return
        outcome = Outcome(**line["ended"])
        self.outcomes.setdefault(outcome.trial, []).append(outcome)
        self.open.remove((outcome.trial, outcome.rung))
        score = outcome.score if outcome.score is not None else float("-inf")
        self.halving.report(outcome.trial, outcome.rung, score)
        self.seconds = line["seconds"]


def read(run: Run, halving: Halving) -> Journal:
    """The journal of a search, empty for a new one; a last line torn by a kill is dropped."""
    lines = run.lines(NAME)
    write_text(run.folder / NAME, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    journal = Journal(run, halving)
    for line in lines:
        journal._take(line)
    return journal
