"""A base with the words of a domain: rows by hand, other weights and other texts untouched, heads kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.errors import DataError, SpecError
from penjing.jobs.vocabulary import extend_tokenizer
from penjing.models.extend import Word, extend, pieces_of, worth
from penjing.models.load import load, tokenizer_at

Tiny = Callable[..., Path]
DOMAIN = ["order tabletinol and 忘记 now", "tabletinol or 忘记?", "my card was charged"] * 5
NEW = ("tabletinol", "忘记")


def chosen(tokenizer: Any) -> list[Word]:
    return [one for one in worth(tokenizer, DOMAIN, n_words=100) if one.word in NEW]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "qwen3", "roberta", "albert"])
def test_a_new_row_is_the_mean_of_its_pieces_and_all_else_is_as_it_was(
    family: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny(family)
    old = tokenizer_at(folder)
    found = chosen(old)
    assert {one.word for one in found} == {*NEW}
    extend(str(folder), tmp_path / "new", found)
    new = tokenizer_at(tmp_path / "new")
    before, after = weights_of(folder), weights_of(tmp_path / "new")
    assert before.keys() == after.keys()
    n_tables = 0
    for name, weight in after.items():
        if weight.shape == before[name].shape:
            assert torch.equal(weight, before[name]), name
            continue
        n_tables += 1
        for one in found:
            row = weight[new.convert_tokens_to_ids(one.word)]
            by_hand = sum(before[name][i].double() for i in pieces_of(old, one.word)) / len(one.pieces)
            torch.testing.assert_close(row.double(), by_hand, rtol=1e-6, atol=1e-7)
        assert torch.equal(weight[: len(before[name])], before[name])
    assert n_tables == {"bert": 2, "roberta": 2, "albert": 2, "llama": 2}.get(
        family, 1
    )  # with output or bias


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_other_texts_read_as_before_and_a_new_word_is_one_token(
    family: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny(family)
    old = tokenizer_at(folder)
    found = chosen(old)
    extend(str(folder), tmp_path / "new", found)
    new = tokenizer_at(tmp_path / "new")
    for text in ("my card was charged twice", "tabletinols, xtabletinol", "账单多扣了一次钱"):
        assert new(text)["input_ids"] == old(text)["input_ids"]
    text = "order tabletinol now, 我忘记了"
    ids = new(text)["input_ids"]
    assert {new.convert_tokens_to_ids(word) for word in NEW} <= {*ids}
    assert all(word in new.decode(ids) for word in NEW)


def test_a_sentence_encoder_stays_one(tiny: Tiny, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "encoder"
    shutil.copytree(tiny("bert"), folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "modules.json").write_text("[]")
    extend(str(folder), tmp_path / "new", worth(tokenizer_at(folder), DOMAIN, n_words=1))
    base: Any = load(str(tmp_path / "new"))
    assert (base.pooling, (base.folder / "modules.json").is_file()) == ("mean", True)


def test_the_job_counts_what_is_saved_and_what_changed(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "domain.txt").write_text("\n".join(DOMAIN))
    found = extend_tokenizer(str(tiny("bert")), tmp_path / "domain.txt", tmp_path / "new", n_words=3)
    saved = sum(one["saved"] for one in found["words"])
    assert found["tokens_before"] - found["tokens"] == saved > 0
    assert (found["lines_without"], found["changed"]) == (5, 0)
    with pytest.raises(SpecError, match="something else is there"):
        extend_tokenizer(str(tiny("bert")), tmp_path / "domain.txt", tmp_path / "new")


def test_a_word_is_worth_what_it_saves_and_what_was_unknown(tiny: Tiny) -> None:
    old = tokenizer_at(tiny("bert"))
    lines = ["忘记 qzqzq"] * 6 + ["123 忘 a"] * 9
    found = {one.word: one for one in worth(old, lines, n_words=9)}
    assert (found["忘记"].saved, found["忘记"].lost) == (6 * (2 - 1), 0)
    unknown = old.unk_token_id in found["qzqzq"].pieces
    assert found["qzqzq"].lost == 6 * unknown
    assert found.keys() == {"忘记", "qzqzq"}


def test_texts_without_such_words_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("tabletinol 123")
    with pytest.raises(DataError, match="none that occurs often enough"):
        extend_tokenizer(str(tiny("bert")), tmp_path / "few.txt", tmp_path / "new")
