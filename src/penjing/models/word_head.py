"""A language model's own head, run only where there is a target, and tied to the trunk's word table.

What a family does between its last states and its words (BERT's dense layer and norm, nothing in GPT-2) is
run by transformers' own code: the word projection is taken out of the way, so that the head gives what would
have entered it, and the projection's product is part of the loss (`linear_loss`).

Legend: n states, T tokens, D width, E width of the word table, V words.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.layers import bare
from penjing.models.linear_loss import each_loss, linear_loss, token_losses
from penjing.models.load import Base, quiet
from penjing.models.own_head import OwnHead

AUTO = {
    "mask": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "answer": "AutoModelForSeq2SeqLM",
}
FITS = {
    "mask": "BERT-like base for `masked`",
    "causal": "GPT-like base for `causal`",
    "answer": "T5- or BART-like base",
}
START = 1  # seed of a head that begins from random weights


class WordHead(nn.Module):
    """`words` (V, E) is the trunk's own table where the family ties them; `bias` (V,) or None."""

    def __init__(self, model: Any, table: nn.Parameter | None) -> None:
        super().__init__()
        out = model.get_output_embeddings()
        self.out = out
        self.first: int | None = None  # what every answer begins with, where a language was chosen
        trains = True if table is None else table.requires_grad
        if table is not None:
            out.weight = table
        self._places = [n for n, m in model.named_modules(remove_duplicate=False) if m is out]
        self.own = OwnHead(model)  # which freezes the table
        out.weight.requires_grad_(trains)
        n_words = len(out.weight)
        own = list(model.named_buffers(recurse=False))
        self._added = [name for name, buffer in own if buffer.shape[-1:] == (n_words,)]
        for name in self._added:
            self.register_buffer(name, model.get_buffer(name))
        self._put(_through())

    @property
    def bias(self) -> Tensor | None:
        """(V,) or None; BART's is added to its logits and does not train."""
        own: Tensor | None = getattr(self.out, "bias", None)
        for buffer in map(self.get_buffer, self._added):
            own = buffer.flatten() if own is None else own + buffer.flatten()
        return own

    def inner(self, states_nD: Tensor) -> Tensor:
        """What enters the word projection: (n, D) -> (n, E), in the states' type."""
        inner: Tensor = self.own(states_nD)
        return inner.to(states_nD.dtype)

    def forward(self, states_nD: Tensor, lengths: Any = None) -> Tensor:
        """(n, D) -> (n, V) logits, fp32."""
        inner = self.inner(states_nD)
        bias = None if self.bias is None else self.bias.to(inner.dtype)
        return nn.functional.linear(inner, self.out.weight.to(inner.dtype), bias).float()

    def loss(self, states_TD: Tensor, labels_T: Tensor) -> Tensor:
        """Summed cross-entropy of the states whose label is not -100, ()."""
        states, labels = targets(states_TD, labels_T)
        return linear_loss(self.inner(states), self.out.weight, self.bias, labels)

    def each_loss(self, states_TD: Tensor, labels_T: Tensor) -> Tensor:
        """(n,) cross-entropy of each state whose label is not -100, with its graph."""
        states, labels = targets(states_TD, labels_T)
        return each_loss(self.inner(states), self.out.weight, self.bias, labels)

    def judged(self, states_TD: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) losses of the states whose label is not -100, and whether the likeliest word is right."""
        states, labels = targets(states_TD, labels_T)
        return token_losses(self.inner(states), self.out.weight, self.bias, labels)

    def save(self, trunk: nn.Module, folder: Path, tokenizer: Any) -> None:
        """Write trunk and head as one checkpoint of transformers, with the tokenizer beside it."""
        model: Any = self.own.model
        whole = bare(trunk)
        for name in self.own.parts:
            setattr(model, name, whole if len(self.own.parts) == 1 else getattr(whole, name))
        if model.config.num_hidden_layers != whole.config.num_hidden_layers:  # some were left out
            model.config = copy.deepcopy(whole.config)
        self._put(self.out)
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        finally:
            self._put(_through())
            for name in self.own.parts:
                setattr(model, name, self.own.trunk)

    def _put(self, projection: nn.Module) -> None:
        """Set what stands for the word projection, without transformers' setter, which ties biases; what is
        added to its logits is put out of the way with it."""
        model: Any = self.own.model
        for place in self._places:
            owner, _, name = place.rpartition(".")
            setattr(model.get_submodule(owner), name, projection)
        for name in self._added:
            buffer = self.get_buffer(name)
            setattr(model, name, buffer.new_zeros(1) if isinstance(projection, nn.Identity) else buffer)


def _through() -> nn.Module:
    """What stands where the word projection was. Mamba asks that for the type of its weight."""
    made = nn.Identity()
    made.weight = torch.empty(0)
    return made


def words_of(head: nn.Module) -> WordHead | None:
    """The head that says words: this one, or the first such of several."""
    return next((m for m in head.modules() if isinstance(m, WordHead)), None)


def targets(states_TD: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor]:
    """The states that are asked for something, and what for."""
    places = (labels_T != -100).nonzero()[:, 0]
    if len(places) == len(labels_T):
        return states_TD, labels_T
    return states_TD.index_select(0, places), labels_T.index_select(0, places)


def word_head(base: Base, kind: str, *, weights: bool) -> tuple[WordHead, str]:
    """The head of `kind` (mask, causal, answer) for a base, and what is to be told of it.

    It has the checkpoint's weights where the checkpoint has them, else random ones. Without `weights` it has
    shapes only: they come from a bundle.

    Raises:
        NotSupported: the family has no such head in transformers.
    """
    import transformers

    auto: Any = getattr(transformers, AUTO[kind])
    trunk: Any = base.trunk
    config, table = trunk.config, trunk.get_input_embeddings().weight
    real = weights and table.device.type != "meta"
    note = ""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(START)
        try:
            if real and not base.grown:
                model, lost = _from_checkpoint(auto, base)
                note = f"{lost} begin from random weights: the checkpoint has none" if lost else ""
            else:
                with torch.device("cpu" if real else "meta"):
                    model = auto.from_config(config)
        except ValueError as error:  # transformers' word for "this family has no such model"
            raise NotSupported(
                f"`{kind}` language modelling needs a family that transformers has it for; "
                f"{type(trunk).__name__} has none. Take a "
                f"{FITS[kind]}."
            ) from error
    if not real and table.device.type != "meta":
        model = model.to_empty(device=table.device)  # before the table is shared: that one has its weights
    tied = bool(getattr(config, "tie_word_embeddings", True))
    return WordHead(model.to(table.device), table if tied else None), note


def _from_checkpoint(auto: Any, base: Base) -> tuple[Any, str]:
    model, info = auto.from_pretrained(
        base.folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
        output_loading_info=True,
    )  # fmt: skip
    return model, ", ".join(sorted(info["missing_keys"])[:3])
