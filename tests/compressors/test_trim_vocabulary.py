"""Fewer words: the same answers to the bit on texts of kept words, in memory and after saving, heads too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressed import answers, held_of, rehearsal_of, reopened, shrink
from conftest import CHINESE, tickets
from penjing.compressors.trim_vocabulary import trim_vocabulary
from penjing.errors import SpecError
from penjing.objectives.causal import causal
from penjing.objectives.masked import masked
from penjing.tasks.few_shot import few_shot

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(6)]
LABELLED = [label for _, label in tickets(6)]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "albert", "electra", "t5", "qwen3", "mpnet"])
def test_texts_of_kept_words_have_the_same_answers_to_the_bit(
    family: str, tiny: Tiny, tmp_path: Path
) -> None:
    held = held_of(tiny(family))
    before = answers(held, TEXTS)
    made = shrink(trim_vocabulary(), held, rehearsal_of(held, TEXTS, LABELLED))
    assert made.facts["words"] < made.facts["words_before"]
    assert made.exact
    assert torch.equal(answers(made.held, TEXTS), before)
    opened = reopened(made.held, tmp_path / "bundle")
    assert len(opened.tokenizer) == made.facts["words"]
    assert opened.base.trunk.config.vocab_size == made.facts["words"]
    torch.testing.assert_close(
        torch.from_numpy(opened.probabilities(TEXTS)), before.softmax(-1).double(), rtol=1e-6, atol=1e-6
    )


def test_words_of_a_text_and_common_words_stay_too(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(CHINESE), encoding="utf-8")
    settings: list[dict[str, Any]] = [{}, {"text": str(tmp_path / "more.txt")}, {"common": 150}]
    sizes, words = [], []
    for one in settings:
        held = held_of(tiny("bert"))
        made = shrink(trim_vocabulary(**one), held, rehearsal_of(held, TEXTS[:1]))
        sizes.append(made.facts["words"])
        words.append(made.held.base.tokenizer.get_vocab())
    assert sizes[0] < min(sizes[1:])
    assert [("账" in one) for one in words[:2]] == [False, True]


@pytest.mark.parametrize(("family", "task"), [("bert", "masked"), ("gpt2", "causal"), ("llama", "causal")])
def test_a_head_that_says_words_says_those_kept(family: str, task: str, tiny: Tiny, tmp_path: Path) -> None:
    """Tied to the word table (GPT-2), beside it (Llama), and with a bias a word (BERT)."""
    held = held_of(tiny(family), {"masked": masked, "causal": causal}[task](), [])
    ids = held.base.tokenizer(TEXTS[0])["input_ids"]
    states = torch.randn(3, held.base.width)
    before = held.model.head(states)
    step = trim_vocabulary(rows=False, text=str(_file(tmp_path, TEXTS)))
    rehearsal = rehearsal_of(held_of(tiny(family)), TEXTS)
    made = shrink(step, held, rehearsal)
    new = made.held.base.tokenizer(TEXTS[0])["input_ids"]
    assert len(new) == len(ids)
    torch.testing.assert_close(made.held.model.head(states)[:, new], before[:, ids])
    opened = reopened(made.held, tmp_path / "bundle", task)
    torch.testing.assert_close(opened.model.head(states)[:, new], before[:, ids])


def test_a_prompts_answer_words_are_found_again(tiny: Tiny) -> None:
    held = held_of(tiny("bert"), few_shot(how="mask", templates=["{text} {mask}"]))
    before = answers(held, TEXTS)
    made = shrink(trim_vocabulary(), held, rehearsal_of(held, TEXTS, LABELLED))
    assert not made.exact
    old, new = torch.softmax(before, 1), torch.softmax(answers(made.held, TEXTS), 1)
    torch.testing.assert_close(new, old, rtol=0, atol=0.05)  # judged against fewer words


def test_a_text_must_be_given_where_rows_are_not_to_count() -> None:
    with pytest.raises(SpecError, match="Give a file as `text`"):
        trim_vocabulary(rows=False)
    with pytest.raises(SpecError, match="0 or more; it is -1"):
        trim_vocabulary(common=-1)


def _file(folder: Path, lines: list[str]) -> Path:
    path = folder / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
