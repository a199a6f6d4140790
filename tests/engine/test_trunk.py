"""The trunk cache: the same run to the bit, the promised cost, never stale, bounded, shared."""

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.data import batches
from penjing.engine import optim, trunk
from penjing.engine.loop import train_steps
from penjing.engine.scoring import embed, outputs
from penjing.errors import WontFit
from penjing.keys import TrainSpec
from penjing.methods.lora import lora
from penjing.methods.top import top
from penjing.models.dropout import set_dropout
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Batch, Method, Step, Tokens
from penjing.tasks.classify import classify

pytestmark = pytest.mark.slow  # every test trains twice

Tiny = Callable[..., Path]
FAMILIES = ["bert", "distilbert", "modernbert", "gpt2", "llama"]
LENGTHS = np.random.default_rng(0).integers(2, 20, 24)
TOKENS = Tokens(
    np.random.default_rng(1).integers(40, 150, LENGTHS.sum()).astype(np.uint16),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(24) % 3
ROOM = 1 << 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own."""
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunk"


def made(
    folder: Path, precision: str = "fp32", *, method: Method | None = None, pooling: str = "mean"
) -> Model:
    base = load(str(folder))
    set_dropout(base.trunk, 0.2)
    torch.manual_seed(0)
    changed = (method or top(layers=1)).apply(base.trunk)
    return Model(changed, ClassHead(base.width, 3, pooling=pooling, dropout=0.2), base.way).prepare(precision)


def kept(model: Model, tokens: Tokens = TOKENS, **settings: Any) -> Tokens:
    return trunk.keep(model, [tokens], **{"most_bytes": ROOM, **settings})[0]


def stream(tokens: Tokens, *, micro_tokens: int = 60) -> Iterator[list[Batch]]:
    for rows in batches.steps(tokens.lengths, batch=8, seed=0, group=True):
        pieces = batches.cut(rows, tokens.lengths, tokens=micro_tokens)
        yield [batches.pack(tokens, piece, LABELS) for piece in pieces]


def run(model: Model, tokens: Tokens, *, steps: int = 6, micro_tokens: int = 60) -> list[Step]:
    """Train; two epochs when nothing else is said."""
    settings = TrainSpec(warmup=0)
    source = stream(tokens, micro_tokens=micro_tokens)
    optimizer = optim.optimizer(model, settings, 1e-2)
    share = optim.schedule(settings, steps)
    return list(train_steps(model, source, classify().loss, optimizer, share, steps=steps))


def bits(model: nn.Module) -> list[bytes]:
    return [p.detach().float().numpy().tobytes() for p in model.parameters()]


def n_computed(model: Model) -> Callable[[], int]:
    """How many rows have gone through the frozen part when asked."""
    seen: list[int] = []
    own = model.kept
    model.kept = lambda batch: seen.append(len(batch.lengths)) or own(batch)  # type: ignore[method-assign]
    return lambda: sum(seen)


# ---- the same run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("family", "layers"), [(family, 1) for family in FAMILIES] + [("bert", 0), ("llama", 0)]
)
def test_a_cached_run_is_the_uncached_one_bit_for_bit(
    family: str, layers: int, precision: str, tiny: Tiny
) -> None:
    """Losses, norms of gradients, weights and scores; batches are cut and joined in many ways."""
    one, other = (made(tiny(family), precision, method=top(layers=layers)) for _ in range(2))
    tokens = kept(one)
    steps = [(s.loss, s.grad_norm, s.n_tokens) for s in run(one, tokens)]
    assert steps == [(s.loss, s.grad_norm, s.n_tokens) for s in run(other, TOKENS)]
    assert bits(one) == bits(other)
    assert torch.equal(outputs(one, tokens), outputs(other, TOKENS))


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_pooled_vectors_give_the_heads_outputs_bit_for_bit(pooling: str, tiny: Tiny) -> None:
    model = made(tiny("bert"), "bf16", method=top(), pooling=pooling)
    tokens = kept(model)
    assert tokens.kept is not None
    assert tokens.kept.of(np.arange(3)).shape == (3, 32)
    assert torch.equal(outputs(model, tokens), outputs(model, TOKENS))
    assert torch.equal(embed(model, tokens, "mean"), embed(model, TOKENS, "mean"))  # needs every state


def test_rows_that_are_read_as_several_sequences_keep_a_vector_of_each(tiny: Tiny) -> None:
    """Prompts put several sequences into a row; their vectors and states follow the row."""
    halved = np.stack([LENGTHS // 2, LENGTHS - LENGTHS // 2], 1)
    tokens = replace(TOKENS, parts=halved, segments=(np.arange(len(TOKENS.ids)) % 2).astype(np.uint8))
    for layers in (0, 1):
        model = made(tiny("bert"), method=top(layers=layers)).eval()
        stored = kept(model, tokens)
        some = np.array([5, 3, 9])
        batch, wanted = batches.pack(stored, some), batches.pack(tokens, some)
        assert torch.equal(model(batch), model(wanted))
        found = batches.halves(batch)
        assert found is not None
        assert torch.allclose(torch.cat([model(part) for part in found]), model(wanted), atol=1e-6)


def test_gradients_through_kept_states_are_those_through_computed_ones(tiny: Tiny) -> None:
    model = made(tiny("bert"), method=lora(rank=2, targets=["encoder.layer.1.attention.self.query"])).eval()
    found: list[list[Tensor]] = []
    for tokens in (TOKENS, kept(model)):
        model.zero_grad()
        classify().loss(model, batches.pack(tokens, np.arange(24), LABELS)).mean.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) > 2
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_kept_states_follow_their_rows_through_halving_and_choosing(tiny: Tiny) -> None:
    model = made(tiny("bert"))
    tokens = kept(model)
    whole = batches.pack(tokens, np.arange(6))
    parts = batches.halves(whole)
    assert parts is not None
    assert whole.states is not None
    assert torch.equal(torch.cat([p.states for p in parts if p.states is not None]), whole.states)
    chosen = batches.pack(tokens.take(np.array([4, 2])), np.array([1]))
    assert torch.equal(chosen.states, batches.pack(tokens, np.array([2])).states)


# ---- what it costs


@pytest.mark.parametrize(("frozen", "epochs"), [(1, 2), (3, 2), (3, 4)])
def test_layers_run_as_often_as_the_formula_says(frozen: int, epochs: int, tiny: Tiny) -> None:
    """k layers once and L - k layers E times, counted in real tokens; backward only above."""
    n_layers = 4
    model = made(tiny("bert", num_hidden_layers=n_layers), method=top(layers=n_layers - frozen))
    assert model.frozen is not None
    forward = [0] * n_layers
    backward = [0] * n_layers

    def counting(at: int) -> None:
        def back(grad: Tensor) -> None:
            backward[at] += grad.shape[1]

        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            forward[at] += out.shape[1]
            if out.requires_grad:
                out.register_hook(back)

        layer = model.frozen.layers[at]  # type: ignore[union-attr]
        own = layer.forward

        def counted(*args: Any, **kwargs: Any) -> Tensor:  # hooks also see layers that only hand on
            out: Tensor = own(*args, **kwargs)
            hook(layer, args, out)
            return out

        layer.forward = counted  # type: ignore[method-assign]

    for at in range(n_layers):
        counting(at)
    tokens = kept(model)
    run(model, tokens, steps=3 * epochs)
    total = int(LENGTHS.sum())
    filled = sum(room for _, room in _blocks())
    assert forward == [filled] * frozen + [total * epochs] * (n_layers - frozen)
    assert backward == [0] * frozen + [total * epochs] * (n_layers - frozen)


def _blocks() -> list[tuple[np.ndarray, int]]:
    from penjing.models.frozen import blocks

    return blocks(LENGTHS)


# ---- whose states they are


def test_other_runs_rows_and_methods_over_the_same_layers_use_them_again(tiny: Tiny) -> None:
    kept(made(tiny("bert")), TOKENS.take(np.arange(20)))
    again = made(tiny("bert"), method=lora(rank=2, targets=["encoder.layer.1.output.dense"]))
    count = n_computed(again)
    tokens = kept(again, TOKENS.take(np.arange(23, 9, -1)))
    assert count() == 4  # rows 20 to 23
    fresh = batches.pack(TOKENS.take(np.arange(23, 9, -1)), np.arange(14))
    assert torch.equal(batches.pack(tokens, np.arange(14)).states, again.eval().kept(fresh))


def test_a_row_that_stands_twice_is_computed_once(tiny: Tiny) -> None:
    model = made(tiny("bert"))
    count = n_computed(model)
    trunk.keep(model, [TOKENS.take(np.array([0, 1, 0])), TOKENS.take(np.array([1, 2]))], most_bytes=ROOM)
    assert count() == 3


def _weight(model: Model) -> None:
    with torch.no_grad():
        model.trunk.encoder.layer[0].output.dense.weight[0, 0] += 1e-6


def _word(model: Model) -> None:
    with torch.no_grad():
        model.trunk.embeddings.word_embeddings.weight[319, 0] += 1e-6


CHANGES: dict[str, Any] = {
    "a weight below": _weight,
    "a word's vector": _word,
    "the configuration": lambda model: setattr(model.trunk.config, "layer_norm_eps", 1e-5),
    "the type": lambda model: setattr(model, "precision", "bf16"),
    "how many layers": lambda model: object.__setattr__(model.frozen, "depth", 2),
    "the threads": lambda model: torch.set_num_threads(torch.get_num_threads() + 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_could_change_a_bit_of_the_states_changes_their_place(change: str, tiny: Tiny) -> None:
    before = trunk.fingerprint(made(tiny("bert")))
    model = made(tiny("bert"))
    assert trunk.fingerprint(model) == before
    threads = torch.get_num_threads()
    try:
        CHANGES[change](model)
        assert trunk.fingerprint(model) != before
    finally:
        torch.set_num_threads(threads)


def test_what_lies_above_the_frozen_layers_does_not_change_their_place(tiny: Tiny) -> None:
    model = made(tiny("bert"))
    before = trunk.fingerprint(model)
    run(model, TOKENS, steps=1)
    assert trunk.fingerprint(model) == before


def test_ways_to_pool_and_other_bases_have_places_of_their_own(tiny: Tiny) -> None:
    models = [made(tiny("bert"), method=top(), pooling=how) for how in ("cls", "mean")]
    models += [made(tiny("bert")), made(tiny("electra")), made(tiny("bert", intermediate_size=48))]
    assert len({trunk.fingerprint(model) for model in models}) == 5


def test_rows_with_other_tokens_never_get_kept_states(tiny: Tiny) -> None:
    """Another tokenizer, text or limit shows in the ids: one id more, less or other is another row."""
    model = made(tiny("bert"))
    kept(model)
    count = n_computed(model)
    row = TOKENS.ids[: LENGTHS[0]]
    others = [row[:-1], np.append(row, 7), np.where(np.arange(len(row)) == 1, row + 1, row)]
    starts = np.concatenate([[0], np.cumsum([len(r) for r in others])])
    kept(model, Tokens(np.concatenate(others).astype(np.uint16), starts))
    assert count() == 3


# ---- where it lies


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.safetensors"))


def test_states_are_kept_in_the_type_they_are_computed_in(tiny: Tiny, cache: Path) -> None:
    for precision, number in (("bf16", 2), ("fp32", 4)):
        model = made(tiny("bert"), precision)
        tokens = kept(model)
        assert tokens.kept is not None
        assert tokens.kept.of(np.array([0])).dtype == {2: torch.bfloat16, 4: torch.float32}[number]
        assert trunk.size_of(model, 24, int(LENGTHS.sum())) == LENGTHS.sum() * 32 * number


def test_more_than_is_allowed_is_refused_before_anything_is_computed(tiny: Tiny, cache: Path) -> None:
    model = made(tiny("bert"))
    count = n_computed(model)
    need = trunk.size_of(model, 24, int(LENGTHS.sum()))
    with pytest.raises(WontFit) as error:
        kept(model, most_bytes=need - 1)
    for part in ("the frozen layer", "24 rows", "`train.cache_gib`", "Raise it"):
        assert part in str(error.value)
    assert not count()
    assert not files(cache)
    kept(model, most_bytes=need)


def test_a_full_disk_is_refused_before_anything_is_computed(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 1000}))
    with pytest.raises(WontFit, match="Make room"):
        kept(made(tiny("bert")))
    assert not files(cache)


def test_older_states_make_room_for_new_ones_and_an_open_run_reads_on(tiny: Tiny, cache: Path) -> None:
    first = made(tiny("bert"))
    old = kept(first)
    wanted = outputs(first, TOKENS)
    need = trunk.size_of(first, 24, int(LENGTHS.sum()))
    kept(made(tiny("electra")), most_bytes=need + 100)
    assert len(files(cache)) == 1
    assert torch.equal(outputs(first, old), wanted)
    count = n_computed(first)
    kept(first)
    assert count() == 24


def test_a_writer_killed_between_chunks_leaves_what_it_had_finished(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "CHUNK", 32 * 4 * 60)  # 60 tokens
    model = made(tiny("bert"))
    own, calls = model.kept, itertools.count()

    def killed(batch: Batch) -> Tensor:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return own(batch)

    monkeypatch.setattr(model, "kept", killed)
    with pytest.raises(KeyboardInterrupt):
        kept(model)
    assert len(files(cache)) == 2
    again = made(tiny("bert"))
    count = n_computed(again)
    tokens = kept(again)
    assert 0 < count() < 24
    assert torch.equal(outputs(again, tokens), outputs(again, TOKENS))


def _keep(folder: Path, queue: Any) -> None:
    model = made(folder)
    count = n_computed(model)
    queue.put((count(), len(kept(model)), count()))


@pytest.mark.slow
def test_two_processes_share_one_cache_and_each_row_is_computed_once(tiny: Tiny, cache: Path) -> None:
    torch.set_num_threads(1)
    forks = multiprocessing.get_context("fork")
    queue = forks.Queue()
    folder = tiny("bert")
    others = [forks.Process(target=_keep, args=(folder, queue)) for _ in range(2)]
    for other in others:
        other.start()
    found = [queue.get(timeout=60) for _ in others]
    for other in others:
        other.join(30)
        assert other.exitcode == 0
    assert sorted(n for _, _, n in found) == [0, 24]
    model = made(folder)
    assert torch.equal(outputs(model, kept(model)), outputs(model, TOKENS))
