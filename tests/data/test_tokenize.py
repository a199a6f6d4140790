"""Token ids equal the tokenizer's own; the cache is taken, mended, bounded, and never needed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.data.tokenize import in_parts, tokenize
from penjing.errors import SpecError
from penjing.records import Tokens

TEXTS = ["my card was charged twice", "我的快递还没有到", "", "a " * 300, "ok"]


@pytest.fixture
def tokenizer(tiny: Callable[..., Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny("bert"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def lists(tokens: Any) -> list[list[int]]:
    return [tokens.ids[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)]


def test_ids_equal_the_tokenizers_own(tokenizer: Any, kept: Path) -> None:
    own = tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]
    tokens = tokenize(tokenizer, TEXTS, max_length=16)
    assert lists(tokens) == own
    assert tokens.cut == sum(len(row) > 16 for row in tokenizer(TEXTS)["input_ids"])


@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama"])
def test_other_families_get_their_own_special_tokens(tiny: Callable[..., Path], family: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    texts = TEXTS[:2]
    assert (
        lists(tokenize(tokenizer, texts, max_length=12))
        == tokenizer(texts, truncation=True, max_length=12)["input_ids"]
    )


def test_a_slow_tokenizer_gives_the_same_ids(tokenizer: Any, kept: Path) -> None:
    class Slow:
        is_fast = False

        def __len__(self) -> int:
            return len(tokenizer)

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=add_special_tokens))

        def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
            return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]

        def num_special_tokens_to_add(self, *, pair: bool) -> int:
            return 2

        def get_vocab(self) -> dict[str, int]:
            return dict(tokenizer.get_vocab())

    slow, fast = tokenize(Slow(), TEXTS, max_length=16), tokenize(tokenizer, TEXTS, max_length=16)
    assert lists(slow) == lists(fast)
    assert slow.cut == fast.cut


def test_answers_are_read_by_the_pieces_of_their_own_language(tokenizer: Any) -> None:
    """As Marian's tokenizers, which hold pieces of two languages."""

    class Two:
        is_fast = False
        _switch_to_target_mode = None  # by which transformers tells such a one

        def __len__(self) -> int:
            return len(tokenizer)

        def __call__(self, *, text_target: Any, **how: Any) -> Any:
            both = text_target if isinstance(text_target, list) else [text_target]
            found = tokenizer([text[::-1] for text in both], **how)["input_ids"]
            return {"input_ids": found if isinstance(text_target, list) else found[0]}

        def num_special_tokens_to_add(self, *, pair: bool) -> int:
            return 2

    found = tokenize(Two(), TEXTS, max_length=16, cache=False, said=True)
    wanted = tokenize(tokenizer, [text[::-1] for text in TEXTS], max_length=16, cache=False)
    assert lists(found) == lists(wanted)
    assert found.cut == wanted.cut > 0
    assert lists(tokenize(tokenizer, TEXTS, max_length=16, said=True)) == lists(
        tokenize(tokenizer, TEXTS, max_length=16)
    )


def test_small_vocabularies_take_two_bytes_a_token(tokenizer: Any) -> None:
    assert tokenize(tokenizer, TEXTS, max_length=16, cache=False).ids.dtype == np.uint16


def test_the_second_time_is_memory_mapped_and_equal(tokenizer: Any, kept: Path) -> None:
    first = tokenize(tokenizer, TEXTS, max_length=16)
    calls: list[tuple[int, int]] = []
    second = tokenize(tokenizer, TEXTS, max_length=16, progress=lambda a, b: calls.append((a, b)))
    assert isinstance(second.ids, np.memmap)
    assert lists(first) == lists(second)
    assert first.cut == second.cut
    assert calls == []


def test_other_texts_limits_and_orders_have_other_files(tokenizer: Any, kept: Path) -> None:
    for texts, limit in ((TEXTS, 16), (TEXTS, 17), (TEXTS[::-1], 16), (["ab", "c"], 16), (["a", "bc"], 16)):
        tokenize(tokenizer, texts, max_length=limit)
    assert len([*kept.iterdir()]) == 5


def test_padding_and_limit_of_the_callers_tokenizer_do_not_matter_and_stay(
    tokenizer: Any, kept: Path
) -> None:
    plain = lists(tokenize(tokenizer, TEXTS, max_length=16))
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=99)
    assert lists(tokenize(tokenizer, TEXTS, max_length=16, cache=False)) == plain
    tokenize(tokenizer, TEXTS, max_length=16)
    assert len([*kept.iterdir()]) == 1
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 5
    assert tokenizer.backend_tokenizer.padding["length"] == 99


def test_added_tokens_are_seen(tokenizer: Any, kept: Path) -> None:
    before = lists(tokenize(tokenizer, ["hello zzyx"], max_length=16))
    tokenizer.add_tokens(["zzyx"])
    assert lists(tokenize(tokenizer, ["hello zzyx"], max_length=16)) != before


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "other"])
def test_a_broken_cache_file_is_made_anew_and_told(tokenizer: Any, kept: Path, harm: str) -> None:
    first = lists(tokenize(tokenizer, TEXTS, max_length=16))
    (path,) = kept.iterdir()
    content = path.read_bytes()
    broken = {
        "cut": content[:-7],
        "flip": content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
        "empty": b"",
        "other": b"not a tensor file at all",
    }
    path.write_bytes(broken[harm])
    said: list[str] = []
    assert lists(tokenize(tokenizer, TEXTS, max_length=16, tell=said.append)) == first
    assert "is broken" in said[0]
    assert isinstance(tokenize(tokenizer, TEXTS, max_length=16, tell=said.append).ids, np.memmap)
    assert len(said) == 1


def test_without_a_cache_folder_it_works_all_the_same(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "file" / "below"))
    assert len(tokenize(tokenizer, TEXTS, max_length=16)) == len(TEXTS)


def test_the_cache_drops_what_was_used_longest_ago(tokenizer: Any, kept: Path) -> None:
    tokenize(tokenizer, ["one"], max_length=16)
    tokenize(tokenizer, ["two"], max_length=16)
    one, two = sorted(kept.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    os.utime(one, (1, 1))
    tokenize(tokenizer, ["three"], max_length=16, most_bytes=2 * two.stat().st_size + 50)
    assert not one.exists()
    assert two.exists()


def test_progress_reaches_the_end(tokenizer: Any) -> None:
    calls: list[tuple[int, int]] = []
    tokenize(
        tokenizer, ["a"] * 20_000, max_length=16, cache=False, progress=lambda a, b: calls.append((a, b))
    )
    assert calls[-1] == (20_000, 20_000)


def test_no_texts_are_no_tokens(tokenizer: Any) -> None:
    assert len(tokenize(tokenizer, [], max_length=16)) == 0


def test_a_limit_without_room_is_a_spec_error(tokenizer: Any) -> None:
    with pytest.raises(SpecError, match="max_length"):
        tokenize(tokenizer, TEXTS, max_length=2)


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "gpt2", "llama"])
@pytest.mark.parametrize("max_length", [64, 12])
def test_pairs_are_read_as_transformers_reads_them(
    family: str, max_length: int, tiny: Callable[..., Path]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    firsts = ["my card was charged twice this morning", "late", "the parcel is late again", ""]
    seconds = ["i was billed", "the courier says it is lost and will not come", "我的快递还没有到", "late"]
    found = tokenize(tokenizer, firsts, max_length=max_length, cache=False, seconds=seconds)
    wanted = tokenizer(firsts, seconds, truncation=True, max_length=max_length, return_token_type_ids=True)
    whole = tokenizer(firsts, seconds)["input_ids"]
    assert lists(found) == wanted["input_ids"]
    assert found.cut == sum(len(row) > max_length for row in whole)
    if family in ("bert", "albert"):
        assert found.segments is not None
        assert found.segments.tolist() == [t for row in wanted["token_type_ids"] for t in row]
    else:
        assert found.segments is None


def test_pairs_are_kept_with_their_segments(tokenizer: Any, kept: Path) -> None:
    made, again = (tokenize(tokenizer, ["a", "b"], max_length=9, seconds=["c", "d"]) for _ in range(2))
    other = tokenize(tokenizer, ["a", "b"], max_length=9, seconds=["c", "e"])
    assert len(list(kept.glob("*.safetensors"))) == 2
    assert np.array_equal(made.ids, again.ids)
    assert again.segments is not None
    assert np.array_equal(made.segments, again.segments)
    assert not np.array_equal(made.ids, other.ids)


def test_rows_of_several_sequences_may_have_unequal_numbers_of_them() -> None:
    flat = Tokens(np.arange(10, dtype=np.int32), np.array([0, 2, 3, 6, 10]))
    assert in_parts(flat, 2).parts.tolist() == [[2, 1], [3, 4]]  # type: ignore[union-attr]
    rows = in_parts(flat, [1, 3])
    assert rows.parts is not None
    assert (rows.parts.tolist(), rows.starts.tolist()) == ([[2, 0, 0], [1, 3, 4]], [0, 2, 10])
