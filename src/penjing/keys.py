"""The keys of a spec's sections: their types, ranges, defaults and meanings, and which exclude each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from penjing.errors import SpecError

FILE_KEYS = ("train", "valid", "test", "probe")
# Key of `train`: optimizers that use it.
USED_BY = {
    "betas": ("adamw", "lion", "muon"),
    "eps": ("adamw", "muon"),
    "momentum": ("sgd", "muon"),
    "muon_lr": ("muon",),
}
SHARED_OUT = ("adamw", "lion", "sgd")  # their rules go number by number, so a share of a weight suffices
NEED_A_RATE = {"sgd": 0.01, "adafactor": 0.001}  # optimizer: a rate to begin with

# A number is welcome where a name is wanted: `name: 2024`.
STRICT = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)
_Files = str | list[str] | None
_Beta = Annotated[float, Field(ge=0, lt=1)]
_Sources = _Files | dict[str, str | list[str]]  # a mapping: each of several tasks' own, by its name


class DataSpec(BaseModel):
    """Where the rows are and how to read them."""

    model_config = STRICT

    train: _Sources = Field(None, description="file, folder, glob or list of them; `hf:name` for a hub set")
    valid: _Sources = Field(None, description="validation rows; cut from train when not given")
    test: _Sources = Field(None, description="test rows, used once, at the end")
    probe: _Files = Field(
        None, description="of a pretraining: labelled rows that a linear probe is tried on at each validation"
    )
    valid_share: float = Field(0.1, gt=0, lt=1, description="share of train kept when `valid` is not given")
    weights: dict[str, float] | None = Field(
        None, description="of a corpus: each source's share of what is learned from; by size when not given"
    )
    documents: Literal["blank_line", "line", "file"] = Field(
        "blank_line", description="of a corpus of plain text: what parts documents"
    )
    text: str | None = Field(None, description="column of the text; guessed and told when not given")
    label: str | None = Field(None, description="column of the label; guessed and told when not given")
    encoding: str | None = Field(None, description="such as gb18030; found out when not given")
    delimiter: str | None = Field(
        None, min_length=1, description="between labels of one cell; found out when not given"
    )
    drop_empty: bool = Field(False, description="leave out rows without text or label, and count them")
    max_length: int | None = Field(
        None, ge=4, description="tokens a row; the base's limit, at most 512, when not given"
    )
    cache: bool = Field(True, description="keep tokenized rows in the cache folder")


class TrainSpec(BaseModel):
    """How to train. One clock: optimizer steps; `epochs` are turned into steps once, at the door."""

    model_config = STRICT

    epochs: float | None = Field(
        None, gt=0, description="passes over the train rows; 400 steps' worth, 5 to 20, if none"
    )
    steps: int | None = Field(None, ge=1, description="optimizer steps; excludes epochs")
    batch: int = Field(32, ge=1, description="rows an optimizer step")
    micro_tokens: int = Field(
        8192, ge=16, description="most tokens at once; a memory knob that changes nothing else"
    )
    lr: float | None = Field(None, gt=0, description="peak learning rate; the method's own when not given")
    lr_scale: float | None = Field(None, gt=0, description="times the method's own peak rate; excludes lr")
    head_lr: float | None = Field(
        None, gt=0, description="peak rate of the task's head; else `lr`, and more for layers that are new"
    )
    optimizer: Literal["adamw", "lion", "muon", "sgd", "adafactor"] = Field(
        "adamw", description="torch's, fused where torch has it; muon moves hidden matrices, adamw the rest"
    )
    betas: tuple[_Beta, _Beta] | None = Field(
        None, description="adamw, muon: [0.9, 0.999] when not given; lion: [0.9, 0.99]"
    )
    eps: float = Field(1e-8, gt=0, description="adamw and muon's adamw")
    momentum: float | None = Field(None, ge=0, lt=1, description="sgd: 0.9 when not given; muon: 0.95")
    muon_lr: float | None = Field(
        None, gt=0, description="peak rate of hidden matrices, 0.02 is usual; `lr`, scaled, when not given"
    )
    weight_decay: float = Field(0.01, ge=0, description="not on biases and norms")
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt", "wsd"] = Field(
        "linear", description="how the rate falls after the warm-up"
    )
    warmup: float = Field(0.1, ge=0, description="share of the steps when below 1, else steps")
    cooldown: float = Field(0.2, gt=0, le=1, description="wsd: share of the steps over which the rate falls")
    floor: float = Field(0.0, ge=0, lt=1, description="share of the peak rate that the schedule ends at")
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a lower layer relative to the one above")
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm")
    checkpointing: bool = Field(False, description="recompute activations: less memory, a third more time")
    dropout: float | None = Field(None, ge=0, lt=1, description="replaces the base's; its own when not given")
    evals: int = Field(
        10, ge=0, description="validations over the run, spread evenly; 0 for none but the last"
    )
    patience: int | None = Field(None, ge=1, description="validations without a better score before stopping")
    minutes: float | None = Field(None, gt=0, description="stop after this many minutes, keeping the best")
    group_by_length: bool = Field(True, description="rows of like length share a step")
    trunk_cache: bool | Literal["auto"] = Field(
        "auto", description="keep what frozen layers make of each row; auto: where that pays and fits"
    )
    cache_gib: float = Field(8.0, gt=0, description="most that the trunk cache may hold on disk, GiB")
    processes: int = Field(1, ge=1, description="that train together, one a GPU; 1 is this one alone")
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="of several processes: ddp, all have the whole model; fsdp, each a share of it"
    )
    save_s: float = Field(60.0, ge=0, description="seconds between saves of what an exact resume needs")


SECTIONS: dict[str, type[BaseModel]] = {"train": TrainSpec, "data": DataSpec}


def refuse_contradictions(train: TrainSpec, data: DataSpec, *, task: str) -> None:
    """Settings that exclude each other, and settings that would be ignored.

    Raises:
        SpecError: the first such.
    """
    for one, other in (("epochs", "steps"), ("lr", "lr_scale")):
        if None not in (first := getattr(train, one), second := getattr(train, other)):
            raise SpecError(
                f"`train.{one}` ({first:g}) and `train.{other}` ({second:g}) are both given; they say the "
                f"same thing twice. Keep one; `--set train.{one}=null` takes one back that a file gives."
            )
    for key, users in USED_BY.items():
        if train.optimizer not in users and getattr(train, key) != TrainSpec.model_fields[key].default:
            raise SpecError(
                f"`train.{key}` is {getattr(train, key)}; the optimizer `{train.optimizer}` does not use it. "
                f"Drop it, or choose `train.optimizer: {users[0]}`."
            )
    split = next((key for key in FILE_KEYS if isinstance(getattr(data, key), dict)), None)
    if split and task != "multitask":
        raise SpecError(
            f"`data.{split}` is a mapping, which gives each of several tasks its rows; `task: "
            f"{task}` is one. Name its files, or say `tasks:`."
        )
    if train.optimizer in NEED_A_RATE and train.lr is None:
        raise SpecError(
            f"`train.lr` is not given; methods bring rates for AdamW, and no factor makes one fit "
            f"`train.optimizer: {train.optimizer}`. Say `train.lr: {NEED_A_RATE[train.optimizer]}` and try "
            f"three times more and less."
        )
    if train.strategy == "fsdp" and train.optimizer not in SHARED_OUT:
        raise SpecError(
            f"`train.strategy: fsdp` leaves each process a share of a weight; `train.optimizer: "
            f"{train.optimizer}` needs the whole. Take {', '.join(SHARED_OUT)}, or `strategy: ddp`."
        )
    if data.valid is not None and data.valid_share != DataSpec.model_fields["valid_share"].default:
        raise SpecError(
            f"`data.valid_share` is {data.valid_share:g} and `data.valid` names rows of their own, so "
            f"nothing would be cut from train. Keep one."
        )
    if train.patience is not None and train.evals == 0:
        raise SpecError(
            f"`train.patience` ({train.patience}) counts validations; `train.evals` is 0, so there would be "
            f"none to count. Drop one."
        )
