"""The base that a spec names, and what becomes of random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from penjing import plugin
from penjing.errors import NotSupported, SpecError, nearest
from penjing.models.load import Base, load
from penjing.models.shapes import SHAPES
from penjing.models.shorten import shortened, which
from penjing.records import Method
from penjing.spec import Spec


def base_of(spec: Spec, device: torch.device | str, *, whole: bool | None = None) -> Base:
    """The spec's base on a device (`meta`: its shapes only), with its decoder where the spec's task wants it.

    Raises:
        NotSupported: no such base, or files that are refused.
        SpecError: `tokenizer` or `shape` with a base that has weights, a preset to grow without one or with
            `layers`, or layers that the base has not.
    """
    if spec.tokenizer is not None and spec.base not in SHAPES:
        near = "" if Path(spec.base).exists() else nearest(spec.base, SHAPES)
        raise SpecError(
            f"`tokenizer` is {spec.tokenizer}; the base `{spec.base}` is no preset to grow, so it has "
            f"weights, and they know its own words only.{near} Leave `tokenizer` out, add words with "
            f"`penjing tokenizer extend`, or take a preset to grow: {', '.join(SHAPES)}."
        )
    if whole is None:
        whole = plugin.build("tasks", spec.task).whole
    base = load(
        spec.base,
        device=device,
        tokenizer_from=spec.tokenizer,
        shape=spec.shape,
        seed=spec.seed,
        whole=whole,
    )
    return base if spec.layers is None else _with_layers(base, spec.layers)


def _with_layers(base: Base, wanted: int | list[int]) -> Base:
    if base.grown:
        raise SpecError(
            f"`layers` is {wanted} and keeps some of a base's own; `{base.name}` begins from random weights. "
            f"Say `shape: {{num_hidden_layers: {wanted if isinstance(wanted, int) else len(wanted)}}}`."
        )
    return shortened(base, which(wanted, base.n_layers))


def refuse_lost(base: Base, method: Method) -> None:
    """A base that no file holds, random or cut, must be in what a run saves.

    Raises:
        SpecError: the method saves something to be put over the base.
    """
    if base.cut and method.saves != "full":
        raise SpecError(
            f"`method: {method.name}` saves what it adds to a base or changes of it; `layers` leaves "
            f"{base.n_layers} of those of `{base.name}`, and no file holds that. Say `method: full`."
        )
    if base.grown and method.saves != "full":
        raise SpecError(
            f"`method: {method.name}` saves what it adds to a base or changes of it; `{base.name}` begins "
            "from random weights, which no file holds and which know nothing yet. Say `method: full`, or "
            "pretrain it first and give that folder as `base`."
        )


def length_of_images(base: Base, wanted: int | None) -> int:
    """States that a base which sees makes of every image.

    Raises:
        SpecError: `data.max_length` is given, and would be ignored.
    """
    if wanted is not None:
        raise SpecError(
            f"`data.max_length` is {wanted}; the base `{base.name}` makes {base.limit} states of every "
            "image, and it would be ignored. Leave it out."
        )
    return base.limit


def applied(method: Method, base: Base) -> nn.Module:
    """The base's trunk, made trainable.

    Raises:
        NotSupported: the method needs words, and the base reads images.
    """
    sees = base.way.sight is not None
    trunk = base.trunk if sees and method.virtual else method.apply(base.trunk)
    if sees and (method.virtual or getattr(trunk, "added", None) is not None):
        raise NotSupported(
            f"`method: {method.name}` puts something beside a sequence of words; the base `{base.name}` "
            "reads images. Take `full`, `top`, `lora`, `bitfit` or an adapter."
        )
    return trunk
