"""What a job will need before it runs: parameters, operations, memory, time.

Formulas: 2 operations a weight and token forward, 2 for activation gradients, 2 for weight gradients (only
where weights train); activations as in Korthikanti et al. 2022 (arXiv 2205.05198), 34 bytes a token and
width at two bytes a number, plus 5 a head and pair of tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from penjing.models.embedding import RowsInUse
from penjing.models.layers import layers_of, linears_of

# Share of the matrix peak that a step reaches on a CPU: an assumption for well-filled steps. bench/tune.py
# measured 0.10 and 0.14 with 500 tokens a step, on a processor with AMX; a run's rehearsal corrects it.
REACHED = {"bf16": 0.35, "fp32": 0.6}


@dataclass(frozen=True)
class Forecast:
    """What a job should take. Memory is beyond what the process has at the start of training."""

    parameters: int
    trainable: int
    flops_a_token: float  # forward and backward
    tokens: float  # over the whole run
    seconds: float
    mib: float

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters and those of them that train. A word table of which only the rows in use are computed counts
    whole: the result is that of training it whole."""
    unused = sum(
        (m.num_embeddings - len(m.weight)) * m.weight.shape[1]
        for m in model.modules()
        if isinstance(m, RowsInUse)
    )
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return total + unused, trainable + unused


def forecast(
    model: Any,
    *,
    tokens_a_step: float,
    longest: float,
    steps: int,
    micro_tokens: int,
    peak_gflops: float,
    precision: str,
) -> Forecast:
    """Forecast a training run of a Model whose trainable parameters are set.

    `tokens_a_step` and `longest` (tokens of a long row) describe the data; `peak_gflops` the machine.
    """
    trunk: nn.Module = model.trunk
    parameters = list(model.parameters())
    total, trainable = count(model)
    held = sum(p.numel() for p in parameters if p.requires_grad)
    lookup = trunk.get_submodule
    weights = sum(p.numel() for n in linears_of(trunk) for p in lookup(n).parameters(recurse=True))
    trained = sum(
        p.numel() for n in linears_of(trunk) for p in lookup(n).parameters(recurse=True) if p.requires_grad
    )
    width, n_layers = int(trunk.config.hidden_size), len(layers_of(trunk))  # type: ignore[union-attr, arg-type]
    added = getattr(trunk, "added", None)
    flows_back = any(p.requires_grad for p in trunk.parameters()) and not hasattr(added, "without_trunk")
    attention = 4.0 * n_layers * width * longest * (3 if flows_back else 1)
    flops = 2.0 * weights + (2.0 * weights if flows_back else 0.0) + 2.0 * trained + attention
    number = 4 if precision == "fp32" else 2
    micro = min(micro_tokens, tokens_a_step)
    heads = int(getattr(trunk.config, "num_attention_heads", 1))
    activations = (
        n_layers * micro * (34 * width + 5 * heads * longest) * number / 2
        if flows_back
        else 34 * width * micro
    )
    copies = number * sum(p.numel() for p in parameters) if precision != "fp32" else 0
    memory = activations + held * 12 + copies
    tokens = tokens_a_step * steps
    seconds = flops * tokens / (peak_gflops * 1e9 * REACHED.get(precision, 0.4))
    return Forecast(total, trainable, flops, tokens, seconds, memory / 2**20)
