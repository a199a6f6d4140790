"""Cross-entropy over a large vocabulary without its logits: they exist a piece at a time.

Gradients are made in the forward pass, while a piece's probabilities are at hand, as in Liger (Hsu et al.
2024, arXiv 2410.10989): three matrix products in all, as many as a plain linear layer and its loss take, and
none of (n, V) is kept.

Legend: n states, D width, V words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PIECE = 2**23  # numbers of a piece's logits: 32 MiB in fp32


def linear_loss(states_nD: Tensor, words_VD: Tensor, bias_V: Tensor | None, labels_n: Tensor) -> Tensor:
    """Sum over n of -log softmax(states words' + bias)[label], (), fp32.

    Products run in the states' type; sums, probabilities and the loss are fp32.
    """
    return _LinearLoss.apply(states_nD, words_VD, bias_V, labels_n)  # type: ignore[no-any-return]


def token_losses(
    states_nD: Tensor, words_VD: Tensor, bias_V: Tensor | None, labels_n: Tensor
) -> tuple[Tensor, Tensor]:
    """(n,) the loss of each state, and (n,) bool whether its likeliest word is the label; without graph."""
    words = words_VD.detach().to(states_nD.dtype)
    losses, hits = [], []
    for states, labels in _pieces(states_nD.detach(), labels_n, len(words)):
        logits = _logits(states, words, bias_V)
        losses.append(logits.logsumexp(-1) - logits.gather(1, labels[:, None])[:, 0])
        hits.append(logits.argmax(-1) == labels)
    if not losses:
        return states_nD.new_zeros(0, dtype=torch.float32), labels_n.new_zeros(0, dtype=torch.bool)
    return torch.cat(losses), torch.cat(hits)


def each_loss(states_nD: Tensor, words_VD: Tensor, bias_V: Tensor | None, labels_n: Tensor) -> Tensor:
    """(n,) -log softmax(states words' + bias)[label], fp32, with their graph: for losses that weigh tokens or
    sequences against each other. A piece's logits are made again on the way back: four products instead of
    three, and none of (n, V) is kept."""
    return _EachLoss.apply(states_nD, words_VD, bias_V, labels_n)  # type: ignore[no-any-return]


def _pieces(states_nD: Tensor, labels_n: Tensor, n_words: int) -> list[tuple[Tensor, Tensor]]:
    size = max(16, PIECE // n_words)
    return [*zip(states_nD.split(size), labels_n.split(size), strict=True)] if len(labels_n) else []


def _logits(states_nD: Tensor, words_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    logits = (states_nD @ words_VD.T).float()
    return logits if bias_V is None else logits.add_(bias_V.detach().float())


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, words: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        want_states, want_words, want_bias, _ = ctx.needs_input_grad
        table = words.to(states.dtype)
        grad_states = torch.empty_like(states) if want_states else None
        grad_words = torch.zeros_like(words) if want_words else None
        grad_bias = torch.zeros_like(bias) if want_bias and bias is not None else None
        total = states.new_zeros((), dtype=torch.float32)
        first = 0
        for piece, wanted in _pieces(states, labels, len(words)):
            last = first + len(wanted)
            logits = _logits(piece, table, bias)
            top = logits.amax(-1, keepdim=True)
            spread = logits.gather(1, wanted[:, None]) - top
            p = logits.sub_(top).exp_()
            sums = p.sum(-1, keepdim=True)
            total += (sums.log() - spread).sum()
            if want_states or want_words or want_bias:
                p.div_(sums)
                p.scatter_add_(1, wanted[:, None], p.new_full((len(wanted), 1), -1.0))
                if grad_bias is not None:
                    grad_bias += p.sum(0)
                narrow = p.to(states.dtype)
                if grad_states is not None:
                    torch.mm(narrow, table, out=grad_states[first:last])
                if grad_words is not None:
                    grad_words += narrow.T @ piece
            first = last
        ctx.grads = (grad_states, grad_words, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g.mul_(grad.to(g.dtype)) for g in ctx.grads]
        ctx.grads = None  # once only: they were scaled where they lie
        return (*scaled, None)


class _EachLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, words: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        ctx.save_for_backward(states, words, bias, labels)
        return token_losses(states, words, bias, labels)[0]

    @staticmethod
    def backward(ctx: Any, grad_n: Tensor) -> tuple[Tensor | None, ...]:
        states, words, bias, labels = ctx.saved_tensors
        want_states, want_words, want_bias, _ = ctx.needs_input_grad
        table = words.to(states.dtype)
        grad_states = torch.empty_like(states) if want_states else None
        grad_words = torch.zeros_like(words) if want_words else None
        grad_bias = torch.zeros_like(bias) if want_bias and bias is not None else None
        first = 0
        for piece, wanted in _pieces(states, labels, len(words)):
            last = first + len(wanted)
            p = _logits(piece, table, bias).softmax(-1)
            p.scatter_add_(1, wanted[:, None], p.new_full((len(wanted), 1), -1.0))
            p *= grad_n[first:last, None]
            if grad_bias is not None:
                grad_bias += p.sum(0)
            narrow = p.to(states.dtype)
            if grad_states is not None:
                torch.mm(narrow, table, out=grad_states[first:last])
            if grad_words is not None:
                grad_words += narrow.T @ piece
            first = last
        return grad_states, grad_words, grad_bias, None
