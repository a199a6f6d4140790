"""A padded model as a program: what torch.export, ONNX and OpenVINO are made from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from penjing.errors import NotSupported
from penjing.models.padded import MASK, PIXELS, SAID, Padded

Made = TypeVar("Made")
BATCH, LENGTH, ANSWER = (
    3,
    12,
    7,
)  # of the example: no two alike, and none 1, or a size would be taken for fixed


def example(model: Padded, size: int | None = None) -> tuple[Tensor, ...]:
    """Tables of random ids, or images, to trace a model on, in the order of its inputs."""
    generator = torch.Generator().manual_seed(0)
    config: Any = getattr(model.trunk, "config", None)
    made = []
    for name in model.ports.inputs:
        if name == PIXELS:
            sides = [int(getattr(config, "num_channels", 3)), *_pair(config.image_size)]
            made.append(torch.randn(BATCH, *sides, generator=generator))
        else:
            shape = (BATCH, ANSWER if name == SAID else size or LENGTH)
            ids = torch.randint(5, int(config.vocab_size), shape, generator=generator)
            made.append(torch.ones_like(ids) if name == MASK else ids % 2 * 0 if "type" in name else ids)
    return tuple(made)


def program_of(model: Padded, limit: int) -> Any:
    """The torch.export program of a padded model, its batch and length free up to `limit` tokens.

    Raises:
        NotSupported: the trunk does something that a graph cannot hold.
    """
    batch = torch.export.Dim("batch")
    length, answer = torch.export.Dim("length", max=limit), torch.export.Dim("answer", max=limit)
    free = tuple(
        {0: batch} if name == PIXELS else {0: batch, 1: answer if name == SAID else length}
        for name in model.ports.inputs
    )

    def made() -> Any:
        with torch.no_grad(), hushed():
            return torch.export.export(model, example(model), dynamic_shapes=(free,), strict=False)

    return told(made, model, "torch.export")


def onnx_of(model: Padded, limit: int, *, outputs: tuple[str, ...], opset: int = 18) -> Any:
    """The ONNX program of a padded model, as torch's exporter gives it.

    Raises:
        NotSupported: ONNX cannot hold it.
    """

    def made() -> Any:
        program = program_of(model, limit)
        with torch.no_grad(), hushed():
            return torch.onnx.export(
                program,
                input_names=list(model.ports.inputs),
                output_names=list(outputs),
                opset_version=opset,
                verbose=False,
            )

    return told(made, model, "ONNX")


def told(make: Callable[[], Made], model: Padded, what: str) -> Made:
    """Run a converter; where it fails with the fused attention, again with the one written out.

    Raises:
        NotSupported: it cannot hold the model, with its own reason.
    """
    trunk: Any = model.trunk
    try:
        return make()
    except Exception:  # converters raise kinds of their own
        trunk.set_attn_implementation("eager")
    try:
        return make()
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise NotSupported(
            f"A graph of {type(trunk).__name__} was wanted; {what} cannot hold it ({type(error).__name__}: "
            f"{said[-1][:240]}). Export with `--to hf`, or take a base of another family."
        ) from error


@contextmanager
def hushed() -> Iterator[None]:
    """Inside, converters keep their warnings and their advice to themselves."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch._export")
    ]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _pair(size: Any) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else (int(size), int(size))
