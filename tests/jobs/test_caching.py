"""Runs with and without the trunk cache: the same run; used where it pays and fits; said, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from penjing import check, tune
from penjing.engine import trunk
from penjing.errors import NotSupported, WontFit
from penjing.jobs.caching import why_not
from penjing.jobs.news import News
from penjing.jobs.train import resume
from penjing.keys import TrainSpec
from penjing.methods.top import top
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.sizing import flops_a_token
from penjing.records import Technique
from penjing.run import Run

pytestmark = pytest.mark.slow  # every test is a run or two
TOP = {"top": {"layers": 1}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own."""
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunk"


@pytest.fixture
def two_passes(small: dict[str, Any]) -> dict[str, Any]:
    """The small spec, training one layer of two, over its 81 rows twice."""
    small["train"] |= {"steps": 12}
    return small | {"method": TOP}


def heard(spec: dict[str, Any], **keywords: Any) -> tuple[Run, str]:
    news: list[News] = []
    run = tune(spec, tell=news.append, **keywords)
    return run, "\n".join(one.text for one in news if one.kind == "note")


def learned(run: Run) -> Any:
    state = load_file(run.folder / "last" / "state.safetensors")
    log = [(line["loss"], line["grad_norm"]) for line in run.lines("log.jsonl")]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}, log


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", [TOP, "top"], ids=["top", "head only"])
def test_a_run_with_the_cache_is_the_run_without_it_bit_for_bit(
    two_passes: dict[str, Any], method: Any, precision: str
) -> None:
    two_passes |= {"method": method, "precision": precision}
    on, said = heard(two_passes, trunk_cache=True)
    off, unsaid = heard(two_passes, trunk_cache=False)
    assert learned(on) == learned(off)
    assert [s["values"] for s in on.lines("scores.jsonl")] == [s["values"] for s in off.lines("scores.jsonl")]
    assert "computed once" in said
    assert "computed once" not in unsaid
    assert on.read("start.json")["trunk_cache"]["layers"] == (1 if method == TOP else 2)
    assert not off.read("start.json")["trunk_cache"]


def test_a_second_run_over_the_same_rows_computes_nothing(
    two_passes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(two_passes)
    monkeypatch.setattr(Model, "kept", None)
    tune(two_passes, lr=1e-3, seed=0)


def test_a_run_whose_cache_is_gone_goes_on_the_same(two_passes: dict[str, Any], cache: Path) -> None:
    whole = tune(two_passes, name="whole")

    def stop(news: News) -> None:
        if news.kind == "progress" and news.text.startswith("loss") and news.done == 7:
            raise KeyboardInterrupt

    two_passes["train"] |= {"save_s": 0}
    with pytest.raises(KeyboardInterrupt):
        tune(two_passes, name="stopped", tell=stop)
    for file in cache.glob("*/*.safetensors"):
        file.unlink()
    stopped = resume(Path(two_passes["out"]) / "stopped")
    assert learned(stopped) == learned(whole)


def test_without_room_the_run_says_so_and_is_the_same(two_passes: dict[str, Any], cache: Path) -> None:
    small, said = heard(two_passes, cache_gib=1e-6)
    assert "`train.cache_gib` allows" in said
    assert "run at every step" in said
    with pytest.raises(WontFit):
        tune(two_passes, cache_gib=1e-6, trunk_cache=True)
    assert not list(cache.glob("*/*.safetensors"))
    assert learned(small)[0] == learned(tune(two_passes))[0]


def test_a_cache_that_must_be_and_cannot_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(NotSupported) as error:
        tune(small, trunk_cache=True)
    for part in ("`train.trunk_cache` is true", "something trains in the lowest layer", "`auto`", "`top`"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("settings", "passes", "wanted"),
    [
        ({}, 3, ""),
        ({}, 1, "every row is seen once"),
        ({"trunk_cache": True}, 1, ""),
        ({"trunk_cache": "on"}, 1, ""),
        ({"trunk_cache": "off"}, 3, "`train.trunk_cache` is false"),
    ],
)
def test_it_is_used_where_rows_are_seen_again_or_it_is_asked_for(
    settings: dict[str, Any], passes: float, wanted: str, tiny: Callable[..., Path]
) -> None:
    assert why_not(TrainSpec(**settings), model(tiny), (), passes) == wanted


def test_a_technique_that_changes_what_enters_the_layers_goes_without(tiny: Callable[..., Path]) -> None:
    attack = Technique("attack", backward=lambda *args: None)  # type: ignore[arg-type, return-value]
    assert why_not(TrainSpec(), model(tiny), (attack,), 3) == "`attack` changes what enters the layers"


def model(tiny: Callable[..., Path], *, layers: int = 1, n_layers: int = 2) -> Model:
    base = load(str(tiny("bert", num_hidden_layers=n_layers)))
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    return Model(top(layers=layers).apply(base.trunk), head, base.way).prepare("fp32")


@pytest.mark.parametrize(("k", "epochs"), [(3, 2), (3, 10), (1, 5), (4, 5)])
def test_the_forecast_follows_the_formula(k: int, epochs: int, tiny: Callable[..., Path]) -> None:
    """(k / E + 3 (L - k)) / 3 L of training all layers."""

    def flops(of: Model, passes: float | None) -> float:
        return flops_a_token(of, 10, passes=passes)

    n_layers = 4
    whole = model(tiny, layers=4, n_layers=n_layers)
    whole.trunk.requires_grad_(True)
    share = (k / epochs + 3 * (n_layers - k)) / (3 * n_layers)
    assert flops(model(tiny, layers=n_layers - k, n_layers=n_layers), epochs) == pytest.approx(
        share * flops(whole, None), rel=0.01
    )


def test_check_tells_how_much_will_be_kept(two_passes: dict[str, Any]) -> None:
    told = {f.about: f for f in check(two_passes) if "frozen" in f.text}
    assert "the frozen layer " in told["cache"].text
    assert told["cache"].state == "ok"
    assert {f.about: f.state for f in check(two_passes, cache_gib=1e-6)}["cache"] == "note"
    assert not [f for f in check(two_passes, method="full") if f.about == "cache"]
    assert [f for f in check(two_passes, method="full", trunk_cache=True) if f.state == "error"]


def test_sizes_are_told_in_mib() -> None:
    assert trunk.mib(3 * 2**19) == "1.5 MiB"
