"""The head that a checkpoint came with, words or classes, apart from its trunk.

transformers' own module is kept and its trunk is replaced by a stand-in that hands over states computed
elsewhere: packed, and only at the places where an answer is read. So every family's head is run by its own
code, and none is named here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.load import Base, quiet

PIECE = 256  # states whose scores over the whole vocabulary exist at once
# What heads hand on beside states: Mixtral's, LED's, Mamba's.
UNUSED = ("router_logits", "encoder_global_attentions", "cache_params")
KINDS = {
    "mask": ("AutoModelForMaskedLM", "a masked language model's head"),
    "causal": ("AutoModelForCausalLM", "a causal language model's head"),
    "entail": ("AutoModelForSequenceClassification", "a classifier's head"),
}


class _StandIn(nn.Module):
    """What stands in a head's model where its trunk was, or its encoder or decoder."""

    def __init__(self, pooler: nn.Module | None, config: Any, *, both: bool = False) -> None:
        super().__init__()
        self.pooler, self.config = pooler, config
        self.both = both  # it stands for an encoder and a decoder, as one module
        self.states: Tensor | None = None  # (n, 1, D)

    @property
    def decoder(self) -> nn.Module:
        """Itself: OPT's head calls that part of its trunk."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as Output
        from transformers.modeling_outputs import Seq2SeqModelOutput

        assert self.states is not None
        if self.both:
            found: Any = Seq2SeqModelOutput(last_hidden_state=self.states)
        else:
            pooled = None if self.pooler is None else self.pooler(self.states)
            found = Output(last_hidden_state=self.states, pooler_output=pooled)
        for name in UNUSED:
            setattr(found, name, None)
        return found


class OwnHead(nn.Module):
    """States (n, D) -> the checkpoint's own scores (n, V), fp32: words where it is a language model, else
    classes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        prefix = model.base_model_prefix
        words = model.get_output_embeddings()
        if hasattr(model, prefix):
            self.parts, trunk = (prefix,), getattr(model, prefix)
            both = bool(getattr(trunk.config, "is_encoder_decoder", False))
            self.trunk = _StandIn(getattr(trunk, "pooler", None), trunk.config, both=both)
        else:  # T5 holds the parts of its trunk side by side with the words
            self.parts = tuple(name for name, part in model.named_children() if part is not words)
            self.trunk = _StandIn(None, model.config)
        for name in self.parts:
            setattr(model, name, self.trunk)
        self.model = model
        if words is not None:  # a table over the whole vocabulary learns nothing from a few rows
            words.requires_grad_(False)

    def forward(self, states_nD: Tensor) -> Tensor:
        """Scores of each state by itself."""
        self.trunk.states = states_nD.float()[:, None]
        try:
            shape, word = (states_nD.shape[0], 1), int(self.model.config.pad_token_id == 0)
            ids = torch.full(shape, word, device=states_nD.device)  # a decoder's classes look for no padding
            logits: Tensor = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        finally:
            self.trunk.states = None
        return logits.float().flatten(0, 1)

    def log_probabilities(self, states_SPD: Tensor, sites: Tensor, tokens: Tensor) -> Tensor:
        """(S, M) log-probability of token m at site m of each row, normalised over the whole vocabulary."""
        rows, n_sites, _ = states_SPD.shape
        found = [states_SPD.new_zeros(0, len(sites), dtype=torch.float32)]
        for piece in states_SPD.split(max(1, PIECE // n_sites)) if rows else ():
            logits = self(piece.flatten(0, 1)).view(len(piece), n_sites, -1)
            asked = logits[:, sites, tokens]  # (s, M); only these and the normaliser are kept
            found.append(asked - logits.logsumexp(-1)[:, sites])
        return torch.cat(found)


def own_head(base: Base, kind: str, *, weights: bool) -> OwnHead:
    """The head of `kind` (mask, causal, entail) that belongs to a base. Without `weights` its shapes only:
    they come from a bundle.

    Raises:
        NotSupported: the checkpoint's family has no such head, or the checkpoint lacks its weights.
    """
    import transformers

    name, what = KINDS[kind]
    auto: Any = getattr(transformers, name)
    trunk: Any = base.trunk
    config = trunk.config
    device = next(trunk.parameters()).device
    weights = weights and device.type != "meta"
    if weights and base.grown:
        raise NotSupported(
            f"`how: {kind}` needs {what} that has learned; `{base.name}` begins from random weights. "
            "Pretrain it first, or tune it with `task: classify`."
        )
    advice = "Take a base that has one, or another `how`: `auto` looks at what the base is."
    with quiet():
        try:
            if weights:
                model, info = auto.from_pretrained(
                    base.folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
                    output_loading_info=True,
                )  # fmt: skip
                lost = sorted(info["missing_keys"])
            else:
                with torch.device("meta"):
                    model, lost = auto.from_config(config), []
        except ValueError as error:  # transformers' word for "this family has no such model"
            raise NotSupported(
                f"`how: {kind}` needs {what}; {type(trunk).__name__} has none in transformers. {advice}"
            ) from error
    if lost:
        raise NotSupported(
            f"`how: {kind}` needs {what}; {base.folder} lacks its weights ({', '.join(lost[:3])}). {advice}"
        )
    if kind == "entail" and model.config.pad_token_id is None:
        model.config.pad_token_id = 0  # else a decoder's classes are said of one row at a time
    head = OwnHead(model)
    return head.to(device) if weights else head.to_empty(device=device)
