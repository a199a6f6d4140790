"""The ground under other tests holds: tiny models load, sockets are closed, the CSV can be learnt."""

import csv
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

FAMILIES = [
    "bert", "roberta", "electra", "distilbert", "albert", "modernbert",
    "mpnet", "gpt2", "llama", "qwen3", "t5",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_model_loads_as_transformers_loads_it(family: str, tiny: Callable[..., Path]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny(family)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert 150 <= len(tokenizer) == model.config.vocab_size <= 320
    text = "my parcel is late"
    row = tokenizer(text, return_tensors="pt")
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in row["input_ids"]
    assert tokenizer.decode(row["input_ids"][0], skip_special_tokens=True).strip() == text
    extra = {"decoder_input_ids": row["input_ids"][:, :1]} if family == "t5" else {}
    with torch.no_grad():
        states = model(**row, **extra).last_hidden_state
    assert states.shape[-1] == 32
    assert torch.isfinite(states).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_model_listens_to_its_context(family: str, tiny: Callable[..., Path]) -> None:
    """Were attention as weak as in a usual random model, parity tests could not fail."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny(family)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    trunk = model.encoder if family == "t5" else model
    ids = tokenizer("my parcel is late on order 12", return_tensors="pt")["input_ids"]
    changed = ids.clone()
    changed[0, 1] = ids[0, 2]
    with torch.no_grad():
        gap = (trunk(ids).last_hidden_state - trunk(changed).last_hidden_state)[0, 3:].abs().max()
    assert gap > 0.01


def test_tiny_takes_config_changes(tiny: Callable[..., Path]) -> None:
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tiny("bert", num_hidden_layers=3)).num_hidden_layers == 3
    assert AutoConfig.from_pretrained(tiny("bert")).num_hidden_layers == 2


def test_pairs_are_framed_as_the_family_frames_them(tiny: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    bert, roberta = (AutoTokenizer.from_pretrained(tiny(name)) for name in ("bert", "roberta"))
    assert bert("late", "lost")["token_type_ids"].count(1) == len(bert("lost")["input_ids"]) - 1
    words = roberta.convert_ids_to_tokens(roberta("late", "lost")["input_ids"])
    assert (words[0], words.count("</s>")) == ("<s>", 3)


def test_connections_beyond_this_machine_are_refused() -> None:
    with pytest.raises(OSError, match="stay on this machine"):
        socket.create_connection(("example.org", 80), timeout=1)
    with socket.socket() as s, pytest.raises(OSError, match="stay on this machine"):
        s.connect(("192.0.2.1", 80))


def test_loopback_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()


def test_the_small_csv_has_three_learnable_classes(tiny_csv: Path) -> None:
    rows = list(csv.DictReader(tiny_csv.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len({row["text"] for row in rows}) == 90
    words: dict[str, set[str]] = {}
    for row in rows:
        words.setdefault(row["label"], set()).update(row["text"].split())
    assert len(words) == 3
    for label, own in words.items():
        assert own - set().union(*(w for other, w in words.items() if other != label)), label
