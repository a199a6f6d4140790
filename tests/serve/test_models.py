"""What is opened is what was registered; what changes on disk is taken over, or refused with the old one
kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penjing.errors import NotSupported
from penjing.files import sha256
from penjing.serve.asked import Closing, Unknown
from penjing.serve.models import Models
from penjing.serve.opened import Bases, open_version
from penjing.serve.registry import Version, find, point, roll_back, share, versions
from serving import made, registered

Tiny = Callable[..., Path]


@pytest.fixture
def root(shelf: Path, tmp_path: Path) -> Path:
    """A registry of one's own with `support`."""
    shutil.copytree(shelf / "support", tmp_path / "serving" / "support")
    return tmp_path / "serving"


def changed(
    root: Path, file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Version:
    """The version with other tensors in a file, and a card and a version.json that say it has to be so."""
    folder = root / "support" / "1"
    tensors = change(load_file(folder / file))
    (folder / file).unlink()  # it is a link to the shelf's
    save_file(tensors, folder / file, metadata={"format": "pt"})
    card = json.loads((folder / "card.json").read_text())
    card["files"][file] = sha256(folder / file)
    return sealed(folder, card)


def sealed(folder: Path, card: dict[str, Any]) -> Version:
    for name, content in (("card.json", card), ("version.json", None)):
        path = folder / name
        about = content or json.loads(path.read_text()) | {"sha256": sha256(folder / "card.json")}
        path.unlink()
        path.write_text(json.dumps(about))
    return versions(folder.parents[1], "support")[0]


def refused(version: Version) -> str:
    with pytest.raises(NotSupported) as said:
        open_version(version, bases=Bases(), device="cpu")
    return str(said.value)


def test_a_version_opens_with_what_it_is_known_by(root: Path) -> None:
    version, way = find(root, "support")
    opened = open_version(version, bases=Bases(), device="cpu")
    assert opened.about == {"name": "support", "version": 1, "sha256": sha256(version.folder / "card.json")}
    assert way == "live"


def test_an_adapter_whose_tensors_do_not_all_land_is_refused(root: Path) -> None:
    def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(iter(tensors))
        return {name.replace("layer.0", "layer.9"): tensors.pop(name), **tensors}

    said = refused(changed(root, "adapter/adapter_model.safetensors", renamed))
    assert "layer.9" in said
    assert "found no place" in said


def test_other_weights_than_those_that_gave_the_golden_answers_are_refused(root: Path) -> None:
    version = changed(
        root, "head.safetensors", lambda t: {k: v + 0.5 * torch.randn_like(v) for k, v in t.items()}
    )
    said = refused(version)
    assert "answers its golden inputs otherwise" in said
    assert "answer 1/scores" in said


def test_a_card_or_a_base_that_is_another_one_is_refused(root: Path, tiny: Tiny) -> None:
    folder = root / "support" / "1"
    card = json.loads((folder / "card.json").read_text())
    other = {
        **card,
        "base": {**card["base"], "name": str(tiny("bert", hidden_act="relu")), "sha256": "0" * 64},
    }
    said = refused(sealed(folder, other))
    assert "was made over the base" in said
    version = versions(root, "support")[0]
    (folder / "card.json").write_text(json.dumps(card))
    assert "A version never changes" in refused(version)


def test_a_version_without_golden_answers_is_refused(root: Path) -> None:
    (root / "support" / "1" / "golden.json").unlink()
    assert "has no golden answers" in refused(versions(root, "support")[0])


def test_a_refused_version_is_never_answered_by_another(root: Path) -> None:
    changed(root, "head.safetensors", lambda t: {k: v + torch.randn_like(v) for k, v in t.items()})
    told: list[Any] = []
    models = Models(root, device="cpu", note=lambda event, about: told.append((event, about)))
    for _ in range(2):
        with pytest.raises(Closing, match="nothing answers in its place"):
            models.open(models.choose("support").version)
    assert [event for event, _ in told] == ["refused"]
    assert "golden" in told[0][1]["why"]


def test_a_promotion_is_followed_once_its_version_is_open(root: Path, tiny: Tiny, tmp_path: Path) -> None:
    told: list[Any] = []
    models = Models(root, device="cpu", note=lambda event, about: told.append((event, about.get("model"))))
    models.open(models.choose("support").version)
    registered(root, "support", made(tmp_path / "next", tiny("bert"), seed=31))
    assert models.choose("support").version.number == 1
    assert models.choose("support@2").way == "pinned"
    point(root, "support", 2)
    assert models.choose("support").version.number == 1, "it is not open yet"
    models.follow()
    assert models.choose("support").version.number == 2
    assert models.opened(models.choose("support").version) is not None, "no request waits for it"
    roll_back(root, "support")
    models.follow()
    assert models.choose("support").version.number == 1
    assert told == [
        ("opened", "support@1"),
        ("opened", "support@2"),
        ("live", "support"),
        ("live", "support"),
    ]


def test_a_promoted_version_that_is_refused_leaves_the_old_one(root: Path, tmp_path: Path) -> None:
    models = Models(root, device="cpu")
    models.open(models.choose("support").version)
    shutil.copytree(root / "support" / "1", root / "support" / "2")
    about = json.loads((root / "support" / "2" / "version.json").read_text()) | {
        "version": 2,
        "sha256": "0" * 64,
    }
    (root / "support" / "2" / "version.json").unlink()
    (root / "support" / "2" / "version.json").write_text(json.dumps(about))
    point(root, "support", 2)
    models.follow()
    models.follow()
    assert models.choose("support").version.number == 1
    assert "support@2" not in [str(o.version) for _, o, _ in models.listed() if o]


def test_canary_and_shadow_get_their_shares(root: Path, tmp_path: Path) -> None:
    for number in (2, 3):
        shutil.copytree(root / "support" / "1", root / "support" / str(number))
        path = root / "support" / str(number) / "version.json"
        about = json.loads(path.read_text()) | {"version": number}
        path.unlink()
        path.write_text(json.dumps(about))
    share(root, "support", "canary", 2, 0.25)
    share(root, "support", "shadow", 3, 0.5)
    drawn = iter([x / 100 for i in range(100) for x in (i, i)])
    models = Models(root, device="cpu", draw=lambda: next(drawn))
    chosen = [models.choose("support") for _ in range(100)]
    assert sum(c.version.number == 2 and c.way == "canary" for c in chosen) == 25
    assert sum(c.shadow is not None and c.shadow.number == 3 for c in chosen) == 50
    assert {c.way for c in chosen} == {"canary", "live"}
    assert models.choose("support@1").shadow is None


def test_what_is_not_there_is_unknown(root: Path) -> None:
    models = Models(root, device="cpu")
    for asked in ("suport", "support@7", "support@prod", "bert"):
        with pytest.raises(Unknown):
            models.choose(asked)


def copied(root: Path, number: int, **other: Any) -> None:
    """Version 1 once more, by another number."""
    place = root / "support" / str(number)
    shutil.copytree(root / "support" / "1", place)
    about = json.loads((place / "version.json").read_text()) | {"version": number, **other}
    (place / "version.json").unlink()
    (place / "version.json").write_text(json.dumps(about))


def test_a_canary_that_is_refused_gets_no_callers(root: Path) -> None:
    copied(root, 2, sha256="0" * 64)
    share(root, "support", "canary", 2, 1.0)
    models = Models(root, device="cpu")
    models.begin("support")
    assert [str(models.choose("support").version), models.choose("support").way] == ["support@1", "live"]
    copied(root, 3)
    share(root, "support", "canary", 3, 1.0)
    models.follow()
    assert str(models.choose("support").version) == "support@3"
    share(root, "support", "canary", 2, 1.0)
    models.follow()
    assert str(models.choose("support").version) == "support@1"


def test_a_model_that_cannot_be_read_keeps_no_other_from_being_followed(root: Path) -> None:
    shutil.copytree(root / "support", root / "broken")
    copied(root, 2)
    models = Models(root, device="cpu")
    assert [models.choose(name).version.number for name in ("broken", "support")] == [1, 1]
    (root / "broken" / "route.json").unlink()
    (root / "broken" / "route.json").write_text("{")
    point(root, "support", 2)
    for _ in range(2):
        models.follow()
    assert [models.choose(name).version.number for name in ("broken", "support")] == [1, 2]
