"""The contract of an exporter: a tuned model as another library reads it.

An exporter writes files and opens them again with that library. The job replays rows through the original and
through what was opened, and keeps neither where they differ: an exporter proves nothing by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.compressor import Held
from penjing.errors import NotSupported
from penjing.models import skeleton
from penjing.models.padded import Run
from penjing.models.stored import kind_of


@dataclass(frozen=True)
class Sent:
    """What is to be written: the model in memory, and what its bundle says of it.

    The model is a copy of its own in fp32 on the CPU, its adapter merged where the exporter `merges`.
    """

    held: Held
    card: Mapping[str, Any]
    folder: Path  # of the bundle


@dataclass(frozen=True)
class Exporter:
    """One target.

    fits(sent) raises NotSupported where the target cannot hold the model, before anything is written; it
    gives what is to be told. write(sent, folder) fills a new folder. opened(sent, folder) reads it with the
    target's own library and gives a function of padded tables (`models.padded`): what `ports_of` names in,
    what it names out. opens: a line of Python that opens the folder, `{folder}` in it. needs: packages whose
    releases the certificate names. merges: adapters are added into the weights first.
    says(sent, folder, inputs): answers in words, where what was written gives them without penjing.
    """

    name: str
    fits: Callable[[Sent], Sequence[str]]
    write: Callable[[Sent, Path], None]
    opened: Callable[[Sent, Path], Run]
    opens: Callable[[Sent], str]
    needs: tuple[str, ...] = ()
    merges: bool = True
    says: Callable[[Sent, Path, Sequence[Any]], list[dict[str, Any]]] | None = None


def wanted(package: str, extra: str, what: str) -> Any:
    """A package that an exporter needs.

    Raises:
        NotSupported: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NotSupported(
            f"{what} was wanted; it needs `{package}`, which is not installed. Say `pip install "
            f"'penjing[{extra}]'`."
        ) from error


def refuse_stored(sent: Sent, target: str) -> None:
    """Layers held in fewer bits are a kind of our own.

    Raises:
        NotSupported: the model has one.
    """
    kinds = {kind for module in sent.held.model.modules() if (kind := kind_of(module))}
    if kinds:
        raise NotSupported(
            f"`{target}` holds plain layers; the bundle in {sent.folder} has layers of kind "
            f"{', '.join(sorted(kinds))}, which only penjing runs. Export the bundle before that step (a "
            "chain leaves "
            "one after each), and quantize with the target's own tools; or serve this one as it is."
        )


def refuse_shapes(sent: Sent, target: str) -> None:
    """As `refuse_stored`, and sizes that no config of transformers says.

    Raises:
        NotSupported: the model has such.
    """
    refuse_stored(sent, target)
    if sent.card["saves"] == "added":
        raise NotSupported(
            f"`{target}` has a place for a family's own layers; the method of the bundle in {sent.folder} "
            "put "
            "others between them. Export to `onnx`, `openvino` or `torch`, or tune with `method: lora`."
        )
    places = skeleton.differs(sent.held.model.trunk)
    if places:
        raise NotSupported(
            f"`{target}` builds the model from its config.json; {len(places)} layers of the bundle in "
            f"{sent.folder} "
            f"(such as {next(iter(places))}) have sizes that no config says: their heads or units were "
            "pruned by "
            "layer. Export to `onnx`, `openvino` or `torch`, which hold any shape."
        )
