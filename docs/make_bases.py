"""Find out which bases each method works on: `python docs/make_bases.py [METHOD …]`.

Lives the contract (tests/contract.py) through on a tiny random model of every family and writes the verdict
into src/penjing/methods/bases.json, which `penjing list`, `penjing show` and docs/methods.md read. Methods
that are not named keep what stands there. `tests/methods/test_methods.py` fails when the file is behind.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "src" / "penjing" / "methods" / "bases.json"


def main() -> None:
    """Try the named methods, or all, on every family."""
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import FAMILIES, make_tiny
    from contract import story
    from penjing import plugin
    from penjing.errors import NotSupported

    warnings.simplefilter("ignore")
    methods = list(plugin.found("methods"))
    known = json.loads(FILE.read_text("utf-8")) if FILE.is_file() else {}
    named = sys.argv[1:] or methods
    found = {name: known[name] for name in methods if name in known and name not in named}
    with tempfile.TemporaryDirectory() as place:
        for name in (name for name in methods if name not in found):
            found[name] = {"works": [], "refuses": []}
            for family, about in FAMILIES.items():
                folder = Path(place) / family
                if not folder.is_dir():
                    make_tiny(folder, about)
                try:
                    story(name, folder)
                    found[name]["works"].append(family)
                except NotSupported:
                    found[name]["refuses"].append(family)
            ordered = {name: found[name] for name in methods if name in found}
            FILE.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
