"""Heads that answer with what a base already knows: words of its language model, entailment, nearest meaning.

Legend: S rows, Q queries a row, P sites a row, A templates, C classes, M label tokens over templates and
classes, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.heads import pool
from penjing.models.own_head import OwnHead
from penjing.models.queries import Query, places

SHARPNESS = 20.0  # cosine to logits: 1 / 0.05, the temperature of contrastive sentence encoders


class WordHead(nn.Module):
    """How likely each label's words are in a prompt's gap (Schick & Schütze 2021, arXiv 2001.07676).

    A label of several tokens counts by the mean of their log-probabilities over the whole vocabulary. `prior`
    (A, C) is what the prompt answers without content; it is subtracted (contextual calibration, Zhao et al.
    2021, arXiv 2102.09690). Templates are ensembled by the mean of their normalised log-probabilities.
    """

    def __init__(
        self, own: OwnHead, queries: Sequence[Query], answers: Sequence[Sequence[Sequence[tuple[int, int]]]]
    ) -> None:
        """`answers[a][c]` are the (site, token) pairs of class c's words in template a; sites number those of
        all queries in order."""
        super().__init__()
        self.own, self.queries = own, tuple(queries)
        self.prior: Tensor  # (A, C)
        self.sites: Tensor  # (M,) int64
        self.tokens: Tensor  # (M,) int64
        self.mean: Tensor  # (M, A * C)
        self.n_templates, self.n_classes = len(answers), len(answers[0])
        flat = [(site, token) for template in answers for label in template for site, token in label]
        mean = torch.block_diag(*(torch.full((len(x), 1), 1 / len(x)) for t in answers for x in t))
        self.register_buffer("prior", torch.zeros(self.n_templates, self.n_classes))
        for name, value in (
            ("sites", torch.tensor([site for site, _ in flat])),
            ("tokens", torch.tensor([token for _, token in flat])),
            ("mean", mean),
        ):
            self.register_buffer(name, value.to(next(own.parameters()).device), persistent=False)

    def scores(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(S, A, C) mean log-probability of each label's words, less the prior."""
        at = torch.from_numpy(places(lengths.cpu().numpy(), self.queries)).to(states_TD.device)  # (S, P)
        states = states_TD.index_select(0, at.flatten()).view(*at.shape, -1)
        found = self.own.log_probabilities(states, self.sites, self.tokens) @ self.mean
        return found.view(-1, self.n_templates, self.n_classes) - self.prior

    def forward(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(S, C) logits: the templates' mean of log-probabilities over the classes."""
        return self.scores(states_TD, lengths).log_softmax(-1).mean(1)

    def calibrate(self, scores_NAC: Tensor) -> None:
        """Set the prior from the scores of N texts without content, taken while it was 0."""
        # the log of the mean probability; of words far less likely than others it would be that of 0
        self.prior.copy_(scores_NAC.log_softmax(-1).logsumexp(0) - math.log(len(scores_NAC)))


class EntailHead(nn.Module):
    """How surely a row entails "this is about <label>", by an NLI model's own head (Yin et al. 2019, arXiv
    1909.00161). Each row is read with every label's hypothesis, so Q = C."""

    def __init__(
        self, own: OwnHead, n_classes: int, *, entails: int, contradicts: int, pooling: str, multi_label: bool
    ) -> None:
        super().__init__()
        self.own, self.n_classes, self.pooling = own, n_classes, pooling
        self.entails, self.contradicts, self.multi_label = entails, contradicts, multi_label

    def scores(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(S, 1, C): entailment's score, with `multi_label` less contradiction's, so that no label depends on
        another."""
        logits = self.own(pool(states_TD, lengths, self.pooling)).view(-1, self.n_classes, self.n_outcomes)
        found: Tensor = logits[..., self.entails]
        return (found - logits[..., self.contradicts] if self.multi_label else found)[:, None]

    @property
    def n_outcomes(self) -> int:
        """What the NLI model tells apart."""
        return int(self.own.model.config.num_labels)

    def forward(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(S, C) logits."""
        return self.scores(states_TD, lengths)[:, 0]


class NearestHead(nn.Module):
    """A linear layer on the pooled state of length one, whose weights are solved for, not trained."""

    def __init__(self, width: int, n_classes: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.out = nn.Linear(width, n_classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.out.requires_grad_(False)

    def embed(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(S, D) pooled states of length one, fp32."""
        return F.normalize(pool(states_TD, lengths, self.pooling).float(), dim=-1)

    def forward(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(S, C) logits."""
        found: Tensor = self.out(self.embed(states_TD, lengths))
        return found

    def put(self, weights_CD: np.ndarray, bias_C: np.ndarray) -> None:
        """Set the layer."""
        for parameter, values in ((self.out.weight, weights_CD), (self.out.bias, bias_C)):
            parameter.data.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
