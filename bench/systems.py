"""What races: the systems, and the settings that all of them share. Imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.sets import Split


@dataclass(frozen=True)
class System:
    """One way to train. `ours` is Penjing; a peer is transformers' Trainer, for adapters over peft.

    `options` are settings of a method that has none in Settings (bench/methods.py). `trials` of it are
    trained at once, which only the bank does.
    """

    name: str
    ours: bool
    method: str  # full, lora or another method's name
    precision: str  # fp32, bf16, or auto (Penjing's own choice)
    grouped: bool  # rows of like length share a batch
    about: str
    trials: int = 1
    options: dict[str, Any] = field(default_factory=dict)


SYSTEMS = {
    system.name: system
    for system in (
        System("trainer", False, "full", "fp32", False, "Trainer, dynamic padding, fp32, defaults"),
        System("trainer-fast", False, "full", "bf16", True, "Trainer, group_by_length, bf16, fused AdamW"),
        System(
            "trainer-fast-fp32", False, "full", "fp32", True, "Trainer, group_by_length, fp32, fused AdamW"
        ),
        System("penjing", True, "full", "auto", True, "Penjing, its defaults"),
        System("penjing-fp32", True, "full", "fp32", True, "Penjing, fp32"),
        System("peft", False, "lora", "fp32", False, "peft LoRA by Trainer, dynamic padding, fp32, defaults"),
        System(
            "peft-fast", False, "lora", "bf16", True, "peft LoRA by Trainer, group_by_length, bf16, fused"
        ),
        System(
            "peft-fast-fp32",
            False,
            "lora",
            "fp32",
            True,
            "peft LoRA by Trainer, group_by_length, fp32, fused",
        ),
        System("penjing-lora", True, "lora", "auto", True, "Penjing LoRA, its defaults"),
        System("penjing-lora-fp32", True, "lora", "fp32", True, "Penjing LoRA, fp32"),
    )
}
FULL = ("trainer", "trainer-fast", "penjing")
LORA = ("peft", "peft-fast", "penjing-lora")


@dataclass(frozen=True)
class Settings:
    """What every system gets alike; `rank` to `targets` are the defaults of Penjing's LoRA."""

    base: str = "minilm"
    folder: str = ""  # of the base's files
    max_length: int = 128
    batch: int = 32
    epochs: float = 10.0
    lr: float = 1e-4
    lora_lr: float = 1e-3
    head_lr: float | None = None  # of pooler and classifier; the method's own rate where not given
    schedule: str = "linear"
    warmup: float = 0.1  # share of the steps; handed to each system as a number of steps
    weight_decay: float = 0.01
    clip: float = 1.0
    rank: int = 16
    alpha: float = 32
    lora_dropout: float = 0.0
    targets: str = "all"
    device: str = "cpu"
    ours_head: str = "auto"  # auto (the family's pooling) or cls (transformers' pooler and classifier)
    peer_head: str = "pooler"  # pooler (AutoModelForSequenceClassification) or mean
    peers_sleep: bool = (
        True  # peers' idle threads sleep soon, as Penjing's do; else they spin, as torch has it
    )
    seed: int = 0

    def rate(self, method: str) -> float:
        """The peak learning rate of a method."""
        return self.lora_lr if method == "lora" else self.lr

    def steps(self, n_rows: int) -> int:
        """Optimizer steps of the whole training: Trainer's and Penjing's count."""
        return max(1, round(self.epochs * -(-n_rows // self.batch)))

    def warm_steps(self, steps: int) -> int:
        """Steps of the warm-up."""
        return round(self.warmup * steps)


@dataclass(frozen=True)
class Job:
    """What a child process is asked to do: `turns`, `cell` or `losses`."""

    what: str
    system: System
    settings: Settings
    split: Split
    steps: int | None = None  # of the whole training, when not by epochs

    def text(self) -> str:
        """As JSON, for the child's command line."""
        return json.dumps(asdict(self))


def job_of(text: str) -> Job:
    """The Job of `Job.text()`."""
    plain: dict[str, Any] = json.loads(text)
    return Job(
        plain["what"],
        System(**plain["system"]),
        Settings(**plain["settings"]),
        Split(**plain["split"]),
        plain["steps"],
    )


def with_lora_defaults(settings: Settings) -> Settings:
    """The settings with the defaults of `penjing.methods.lora`, so that the peer does the same."""
    import inspect

    from penjing.methods.lora import lora

    default = {name: p.default for name, p in inspect.signature(lora).parameters.items()}
    alpha = default["alpha"] if default["alpha"] is not None else 2 * default["rank"]
    return replace(
        settings,
        rank=default["rank"],
        alpha=alpha,
        lora_dropout=default["dropout"],
        targets=default["targets"],
    )


def tuned_peft(device: str) -> str:
    """Name of the peft system that its best users would take here: bf16 only where it gains."""
    from penjing.device import choose

    return "peft-fast" if choose(device).precision == "bf16" else "peft-fast-fp32"
