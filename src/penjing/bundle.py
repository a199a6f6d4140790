"""A model one can use, and the truth about it: weights, head, tokenizer, labels and a card. safetensors and
JSON only.

A bundle is a folder:
    card.json            task, labels, base, how it was made, scores, reference statistics, SHA-256 of files
    head.safetensors     the task's head
    tokenizer/           the tokenizer's files; of a base that reads images processor/, as transformers has it
    trunk/               method `full`: the whole trunk in transformers' format; where layers are held in
                         fewer bits or have sizes that no config says, with stored.json (models/skeleton.py);
                         a graph of OpenVINO or ONNX Runtime, with compiled.json (models/compiled.py)
    adapter/             adapters: in peft's format, over the base that the card names
    changed.safetensors  methods that train some weights of the base: just those, over the base that the card
                         names
    added.safetensors    methods that add weights of their own: those; the card's method puts their place into
                         the base
    members/0 …          an ensemble: bundles of one base that answer as one, and mix.safetensors where
                         stacked
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing import plugin
from penjing.bundle_card import FORMAT, HEAD, MIX, TRAINED, card_bytes, chosen, read_card, tensors
from penjing.bundle_parts import borrowed, dense_of, machine_of, open_base, put_back, put_head, with_adapter
from penjing.data import parts
from penjing.data.parts import rows_of
from penjing.device import Machine
from penjing.engine.scoring import outputs, predictions
from penjing.engine.vectors import vectors
from penjing.errors import DataError, NotSupported
from penjing.files import new_folder, sha256, standing, write_json
from penjing.models import peft_files, skeleton
from penjing.models.checkpoint import with_pooler
from penjing.models.compiled import Compiled
from penjing.models.embedding import whole_state
from penjing.models.ensemble import Ensemble, share_weights
from penjing.models.four_bit import held_in, hold
from penjing.models.layers import bare
from penjing.models.load import Base, quiet
from penjing.models.model import Model
from penjing.models.word_head import words_of
from penjing.places import typed
from penjing.plugin import choice
from penjing.records import Part, Rows, Tokens
from penjing.task import Task
from penjing.trust import opening


@dataclass(frozen=True, repr=False)
class Bundle:
    """An opened bundle. `predict` answers texts; `card` is what is known of it."""

    folder: Path
    card: dict[str, Any]
    model: Model | Ensemble
    task: Task
    base: Base
    machine: Machine

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, as saved with the bundle; None where it reads images."""
        return self.base.tokenizer

    def __repr__(self) -> str:
        """`Bundle('runs/a/best': classify, 77 labels, minilm by lora)`."""
        method = chosen(self.card, "method")
        return (
            f"Bundle('{self.folder}': {self.task.name}, {len(self.labels)} labels, "
            f"{self.card['base']['name']} by {method})"
        )

    @property
    def labels(self) -> list[str]:
        """Label names, in the order of the classes."""
        return list(self.card["labels"])

    def part(self, rows: Rows, *, labelled: bool = True) -> Part:
        """Rows as the model reads them, with their targets where they are labelled.

        Raises:
            DataError: a row has no token at all, or a label that the bundle does not know.
        """
        if self.task.feed:
            raise NotSupported(
                f"Answers to texts were wanted; `{self.task.name}` learned a language and answers nothing by "
                f"itself. Tune it for a task (`penjing tune --base {typed(self.folder)}`), or score it on "
                "other text with `penjing evaluate`."
            )
        longest = self.card["max_length"]
        part = parts.part_of(self.task, self.base, rows, self.labels, longest, labelled=labelled)
        empty = np.flatnonzero(part.tokens.lengths == 0)
        if len(empty):
            row = empty[0] if part.owners is None else part.owners[empty[0]]
            raise DataError(
                f"Text {row + 1} of {len(rows)} is {rows.texts[row]!r}, and this base's tokenizer makes no "
                f"token of it; {len(empty)} are so. Leave such texts out."
            )
        return part

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """The texts as the model reads them; `cut` of them are longer than the bundle's limit and lose their
        end.

        Raises:
            DataError: a text has no token at all.
        """
        return self.part(rows_of(texts), labelled=False).tokens

    def infer(self, part: Part, *, tokens: int = 8192) -> Any:
        """What the model predicts of a part, as its task sees it; at most `tokens` are computed at once."""
        return predictions(self.task, self.model, part, tokens=tokens)

    def probabilities(self, texts: Sequence[str] | Tokens, *, tokens: int = 8192) -> np.ndarray:
        """(S, C) float64 probabilities of the texts, in order; at most `tokens` are computed at once.

        Raises:
            NotSupported: the task gives no text one label.
        """
        if self.task.infer:
            raise NotSupported(
                f"Probabilities of labels were wanted; `{self.task.name}` does not give each text a label. "
                f"`predict` gives its answers."
            )
        read = texts if isinstance(texts, Tokens) else self.tokens(texts)
        return self.task.probabilities(outputs(self.model, read, tokens=tokens))

    def embed(self, texts: Sequence[str], *, tokens: int = 8192) -> np.ndarray:
        """(n, D) float32 vectors of length one of the texts, in order.

        Raises:
            NotSupported: the bundle's head makes no vectors of texts alone.
            DataError: a text has no token at all.
        """
        return vectors(
            self.model, self.tokenizer, texts, self.card["max_length"], tokens=tokens, who=repr(self)
        )

    def formed(self, form: Any) -> Bundle:
        """The same bundle whose answers have a form: `{"schema": …}`, `{"regex": …}` or `{"choices": […]}`
        (docs/forms.md). NotSupported where its task says no texts."""
        return replace(self, task=parts.formed(self.task, form))

    def predict(self, inputs: Iterable[Any], *, form: Any = None, tokens: int = 8192) -> list[dict[str, Any]]:
        """One answer an input: of a classifier `label` (or `labels`), `confidence` in 0..1, and `scores` of
        every label; of other tasks what their page says. Inputs are texts, or what the task takes. `form` as
        in `formed`.

        Raises:
            DataError: not texts, or not what the task takes.
        """
        if form is not None:
            return self.formed(form).predict(inputs, tokens=tokens)
        single = isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable)
        if single or hasattr(inputs, "columns"):  # a table gives its columns' names, one after the other
            raise DataError(
                f"`predict` takes a list of texts; it got {type(inputs).__name__} {str(inputs)[:60]!r}. "
                f"For one text write predict([text]), for a table's column predict(table[name])."
            )
        asked = list(inputs)
        return self.answer(self.asked(asked), tokens=tokens) if asked else []

    def asked(self, inputs: Sequence[Any]) -> Rows:
        """Inputs of `predict` as the task's rows, without labels."""
        return (self.task.ask or rows_of)(inputs)

    def answer(
        self, rows: Rows, *, tokens: int = 8192, cut: Callable[[int], object] | None = None
    ) -> list[dict[str, Any]]:
        """One answer a row, as `predict` gives them; labels that rows may have are not looked at. `cut` hears
        how many are longer than the bundle's limit and lose their ends.
        """
        part = self.part(rows, labelled=False)
        if cut:
            cut(part.tokens.cut)
        found = self.infer(part, tokens=tokens)
        return self.task.answers(found, self.labels, self.card["chosen"])


def save(folder: Path, *, model: Model, base: Base, saves: str, card: dict[str, Any]) -> None:
    """Write a bundle in one step: a reader sees the old one or this one, whole.

    `card` holds what the caller knows (task, method, labels, max_length, chosen, scores, …); what is known
    of the base and the files' hashes are added. A base in a local folder is named by its absolute path.

    Raises:
        CannotWrite: no room or no right; what stood there stays.
    """
    from safetensors.torch import save_file

    with new_folder(folder) as aside, quiet():
        save_file(_head_state(model), aside / HEAD)
        if base.way.sight:
            base.way.sight.save(aside / "processor")
        else:
            base.tokenizer.save_pretrained(aside / "tokenizer")
        if saves == "full":
            card = {**card, **_save_trunk(aside / "trunk", model, base)}
            if base.way.sight:  # the folder is a base by itself
                base.way.sight.save(aside / "trunk")
        elif saves == "peft":
            peft_files.save(model.trunk, aside / "adapter")
        else:
            trained = {
                n: p.detach().contiguous() for n, p in model.trunk.named_parameters() if p.requires_grad
            }
            save_file(trained, aside / TRAINED[saves], metadata={"format": "pt"})
        files = {f.relative_to(aside).as_posix(): sha256(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        about = {
            "name": base.name if base.folder != Path(base.name) else str(base.folder.absolute()),
            "sha256": base.sha256,
            "pooling": _taught_pooling(model, base),
            "width": base.width,
            "kind": base.kind,
            **({"held_in": held_in(model.trunk)} if held_in(model.trunk) else {}),
        }
        full = {"format": FORMAT, "saves": saves, **card, "base": about, "files": files}
        write_json(aside / "card.json", full)


def _save_trunk(folder: Path, model: Model, base: Base) -> dict[str, Any]:
    """Write the whole trunk, with its family's own dense layer over CLS; what the card is to say of it.

    A language model has no such layer in transformers: there it is written where a head was taught with it.
    """
    trunk, words = model.trunk, words_of(model.head)
    if isinstance(trunk, Compiled):
        trunk.save(folder)
        return {"stored": {trunk.graph.runtime: trunk.made}}
    taught = any(part is base.pooler for part in model.head.modules())
    with with_pooler(bare(trunk), base.over_cls if taught or words is None else None):
        places = skeleton.differs(trunk)
        if places:
            skeleton.save(trunk, folder, places)
            return {"stored": skeleton.counted(places)}
        if words is not None:  # one checkpoint: a language model as transformers has it
            words.save(trunk, folder, base.tokenizer)
        else:
            bare(trunk).save_pretrained(folder, state_dict=whole_state(trunk))
    return {}


def _taught_pooling(model: Model, base: Base) -> str:
    """How whoever tunes the base is to sum up a sequence.

    The first state of an encoder that grew by saying hidden words stands for no text: no loss read it so. A
    bert-tiny (80 steps) tuned from there by its first state on 270 Chinese reviews gave one label at any rate
    (accuracy 0.61, TF-IDF 0.82); by the mean it learned them (0.79 at 3e-4, 0.84 at 1e-3).
    """
    read = any(hasattr(part, "pooling") for part in model.head.modules())
    untaught = base.grown and base.kind == "encoder" and words_of(model.head) is not None and not read
    return "mean" if untaught else base.pooling


def _head_state(model: Model) -> dict[str, torch.Tensor]:
    """The head's own tensors; a word table that it shares with the trunk is the trunk's."""
    shared = {p.data_ptr() for p in model.trunk.parameters()}
    # clones: a language model's head may hold one tensor under two names
    state = model.head.state_dict()
    return {k: v.clone().contiguous() for k, v in state.items() if v.data_ptr() not in shared or not len(v)}


def load(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    base: str | None = None,
    machine: Machine | None = None,
    trust: Sequence[str] = (),
    lent: Mapping[str, Base] | None = None,
) -> Bundle:
    """Open a bundle (or a run, whose best bundle is taken). `base` says where the base is, if it has moved.
    `lent` are bases in memory by their SHA-256: a bundle over one of them shares its weights.

    `trust` names packages whose functions the bundle may name as its task or method; penjing's own, and those
    that a spec of this process has named, always may.

    Raises:
        NotSupported: not a bundle, damaged files, a base that is not the one it was made with, or code of a
            package that is not trusted.
    """
    place = Path(folder)
    if (place / "spec.yaml").is_file() and not (place / "card.json").is_file():
        place = place / "best"
    for _ in range(5):
        seen = card_bytes(place)
        try:
            with opening(place, trust):
                return _load(standing(place), device, precision, base, machine, lent)
        except (NotSupported, OSError):
            if card_bytes(place) == seen:
                raise
            time.sleep(0.1)  # a run that goes on has just put a better bundle in its place
    with opening(place, trust):
        return _load(standing(place), device, precision, base, machine, lent)


def _load(
    place: Path,
    device: str,
    precision: str | None,
    base: str | None,
    machine: Machine | None,
    lent: Mapping[str, Base] | None,
) -> Bundle:
    card = read_card(place)
    if card["saves"] == "ensemble":
        return _ensemble(place, card, device, precision, base, machine, lent)
    machine = machine or machine_of(device, precision, card)
    task: Task = plugin.build("tasks", choice(card["task"], kind="tasks", key="task"))
    found = borrowed(place, card, machine, lent or {}, whole=task.whole)
    found = found or open_base(place, card, base, machine, whole=task.whole)
    trunk: nn.Module = found.trunk
    if card["saves"] == "peft":
        trunk = with_adapter(place, trunk)
        if card["base"].get("held_in"):
            hold(trunk)
    elif card["saves"] in TRAINED:
        if card["saves"] == "added":
            trunk = plugin.build("methods", choice(card["method"], kind="methods", key="method")).apply(trunk)
        put_back(place / TRAINED[card["saves"]], trunk)
    if task.bind:
        task = task.bind(found, card["labels"], weights=False)
    parts.refuse_unseen(task, found)
    head = task.head(found.width, card["labels"], card["base"]["pooling"], dense_of(found, card))
    put_head(place / HEAD, head, trunk)
    model = Model(trunk, head.to(machine.device), found.way)
    model.requires_grad_(False)
    model.prepare(machine.precision)
    model.eval()  # last: what `prepare` puts in begins in training mode
    return Bundle(place, card, model, task, found, machine)


def _ensemble(
    place: Path,
    card: dict[str, Any],
    device: str,
    precision: str | None,
    base: str | None,
    machine: Machine | None,
    lent: Mapping[str, Base] | None,
) -> Bundle:
    """Members are bundles in folders of their own; what of their base is equal is held once."""
    members = [_load(place / name, device, precision, base, machine, lent) for name in card["members"]]
    models = [member.model for member in members if isinstance(member.model, Model)]
    share_weights(models)
    task, machine, n_labels = members[0].task, members[0].machine, len(card["labels"])
    mix = None
    if card["way"] == "stack":
        mix = nn.Linear(len(members) * n_labels, n_labels).to(machine.device)
        mix.load_state_dict(tensors(place / MIX))
        mix.requires_grad_(False)
    model = Ensemble(models, card["way"], of=task.outputs, mix=mix)
    return Bundle(place, card, model.eval(), task, members[0].base, machine)
