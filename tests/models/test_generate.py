"""Generation says what transformers' `generate` says, token by token, and keeps its promises to each row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common import told, words
from penjing.errors import DataError, SpecError
from penjing.models.decoding import Decoding, drawn, narrowed, one_of
from penjing.models.generate import generate, stream
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.word_head import word_head

Tiny = Callable[..., Path]
LENGTHS = [3, 9, 5, 1, 14, 5]
BASES = ["gpt2", "marian"]
more = [pytest.param(one, marks=pytest.mark.slow) for one in ("t5", "llama", "qwen3", "bart")]
every = pytest.mark.parametrize("name", [*BASES, *more])
GREEDY = Decoding(max_new=12)
RULES = {
    "greedy": ({}, {}),
    "beams": ({"beams": 4}, {"num_beams": 4}),
    "early": (
        {"beams": 3, "early": True, "length_penalty": 0.6},
        {"num_beams": 3, "early_stopping": True, "length_penalty": 0.6},
    ),
    "long": ({"beams": 3, "length_penalty": 2.0}, {"num_beams": 3, "length_penalty": 2.0}),
    "min": ({"min_new": 6}, {"min_new_tokens": 6}),
    "repeats": (
        {"repetition_penalty": 1.6, "no_repeat": 2},
        {"repetition_penalty": 1.6, "no_repeat_ngram_size": 2},
    ),
    "beams without repeats": ({"beams": 2, "no_repeat": 2}, {"num_beams": 2, "no_repeat_ngram_size": 2}),
}


def made(tiny: Tiny, name: str) -> tuple[Model, list[list[int]], list[int], int]:
    """A model with its words, prompts, the ids that stop, and its longest row. Of the words that it says last
    some stop, so that answers end at different places."""
    base = load(str(tiny(name)), whole=True)
    head, _ = word_head(base, "answer" if base.kind == "encoder-decoder" else "causal", weights=True)
    ids = words(base, sum(LENGTHS)).split(LENGTHS)
    model = Model(base.trunk, head, base.way).prepare("fp32").eval()
    rows = [row.tolist() for row in ids]
    said = [[*dict.fromkeys(one[0].ids)] for one in generate(model, rows, GREEDY, stop=[])]
    stop = [base.tokenizer.eos_token_id, *sorted({own[-1] for own in said if len(own) > 1})[:3]]
    return model, rows, stop, base.limit


def theirs(tiny: Tiny, name: str, rows: list[list[int]], stop: list[int], **asked: Any) -> list[list[int]]:
    """What transformers' `generate` gives to each row by itself, without prompt and stop token."""
    import transformers

    kind = "AutoModelForSeq2SeqLM" if name in ("t5", "bart", "marian") else "AutoModelForCausalLM"
    model = getattr(transformers, kind).from_pretrained(tiny(name)).eval()
    config = transformers.GenerationConfig(
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=0,
        bad_words_ids=[[model.config.pad_token_id]] if kind.endswith("2SeqLM") else None,
        decoder_start_token_id=model.config.decoder_start_token_id if kind.endswith("2SeqLM") else None,
        **asked,
    )
    model.generation_config = config  # Marian's and BART's own forces a stop token at the last place
    found = []
    for row in rows:
        ids = torch.tensor([row])
        said = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0].tolist()
        said = said[1:] if kind.endswith("2SeqLM") else said[len(row) :]
        at = next((i for i, token in enumerate(said) if token in stop), len(said))
        found.append(said[:at])
    return found


@every
@pytest.mark.parametrize("rule", [*RULES])
def test_every_token_is_that_of_transformers(tiny: Tiny, name: str, rule: str) -> None:
    model, rows, stop, limit = made(tiny, name)
    ours, asked = RULES[rule]
    how = Decoding(max_new=12, **ours)
    found = generate(model, rows, how, stop=stop, limit=limit)
    assert [list(one[0].ids) for one in found] == theirs(tiny, name, rows, stop, **asked)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("how", [GREEDY, Decoding(max_new=8, beams=3, best=2)], ids=["greedy", "beams"])
def test_reading_all_again_says_the_same(tiny: Tiny, name: str, how: Decoding) -> None:
    model, rows, stop, _ = made(tiny, name)
    found, again = (generate(model, rows, how, stop=stop, cached=cached) for cached in (True, False))
    for one, other in zip(found, again, strict=True):
        assert [s.ids for s in one] == [s.ids for s in other]
        assert [s.score for s in one] == pytest.approx([s.score for s in other], rel=1e-4)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(
    "how",
    [GREEDY, Decoding(max_new=8, beams=3), Decoding(max_new=8, sample=True, temperature=2.0, top_p=0.9)],
    ids=["greedy", "beams", "sampled"],
)
def test_an_answer_does_not_depend_on_company(tiny: Tiny, name: str, how: Decoding) -> None:
    model, rows, stop, _ = made(tiny, name)
    together = generate(model, rows, how, stop=stop)
    apart = generate(model, rows, how, stop=stop, tokens=1)
    assert [one[0].ids for one in together] == [one[0].ids for one in apart]


@pytest.mark.parametrize("name", BASES)
def test_a_stream_says_what_a_batch_says(tiny: Tiny, name: str) -> None:
    model, rows, stop, _ = made(tiny, name)
    for how in (GREEDY, Decoding(max_new=8, sample=True, seed=5)):
        whole = generate(model, rows[:1], how, stop=stop)[0][0]
        said = []
        for token in stream(model, rows[0], how, stop=stop):
            said.append(token)
            assert generate(model, rows[:1], how, stop=stop)[0][0] == whole  # others are served meanwhile
        assert tuple(said) == whole.ids


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("beams", [1, 3])
def test_only_the_choices_can_be_said(tiny: Tiny, name: str, beams: int) -> None:
    model, rows, stop, _ = made(tiny, name)
    choices = [(50, 51, 52), (50, 51), (60,)]
    allow = one_of(choices, stop[0])
    found = generate(model, rows, Decoding(max_new=8, beams=beams), stop=stop[:1], allow=allow)
    assert all(one[0].ids in choices and one[0].ended for one in found)


def test_the_beam_finds_the_likeliest_choice(tiny: Tiny) -> None:
    model, rows, stop, _ = made(tiny, "marian")
    choices = [(50, 51), (60, 61), (70, 71)]
    how = Decoding(max_new=4, beams=3, length_penalty=0.0)
    allow = one_of(choices, stop[0])
    (found,) = generate(model, rows[:1], how, stop=stop[:1], allow=allow)
    alone = [generate(model, rows[:1], how, stop=stop[:1], allow=one_of([c], stop[0]))[0][0] for c in choices]
    assert found[0] == max(alone, key=lambda one: one.score)


def test_what_is_drawn_is_drawn_as_often_as_it_is_likely() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.0, 0.4]]).log()
    chances = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = drawn(scores.expand(1000, -1), chances).bincount(minlength=4)
    assert counts.tolist() == [100, 500, 0, 400]


def test_top_k_and_top_p_leave_the_likeliest_words() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.05, 0.35]]).log()
    kept = lambda **asked: (narrowed(scores, Decoding(sample=True, **asked))[0] > -torch.inf).tolist()  # noqa: E731
    assert kept(top_k=2) == [False, True, False, True]
    assert kept(top_p=0.8) == [False, True, False, True]
    assert kept(top_p=0.01) == [False, True, False, False]
    flat = narrowed(scores, Decoding(sample=True, temperature=2.0)).softmax(1)
    wanted = torch.tensor([[0.1, 0.5, 0.05, 0.35]]).sqrt()
    assert torch.allclose(flat, wanted / wanted.sum())


@pytest.mark.parametrize("name", BASES)
def test_a_config_whose_padding_is_no_token_changes_no_answer(tiny: Tiny, name: str) -> None:
    model, rows, stop, limit = made(tiny, name)
    wanted = generate(model, rows, GREEDY, stop=stop, limit=limit)
    model.trunk.config.pad_token_id = -1  # type: ignore[union-attr]
    found = generate(model, rows, GREEDY, stop=stop, limit=limit)
    assert [one[0].ids for one in found] == [one[0].ids for one in wanted]


@pytest.mark.parametrize("how", [GREEDY, Decoding(max_new=8, beams=3)], ids=["greedy", "beams"])
def test_the_padding_of_an_encoder_decoder_is_no_word(tiny: Tiny, how: Decoding) -> None:
    """Marian's stands above most words, and no answer teaches otherwise."""
    model, rows, stop, _ = made(tiny, "marian")
    pad: Any = model.trunk.config.pad_token_id  # type: ignore[union-attr]
    wanted = generate(model, rows, how, stop=stop)
    model.head.get_buffer("final_logits_bias")[0, pad] = 50.0
    assert pad not in stop
    found = generate(model, rows, how, stop=stop)
    assert [one[0].ids for one in found] == [one[0].ids for one in wanted]
    if how.beams == 1:
        assert tuple(stream(model, rows[0], how, stop=stop)) == found[0][0].ids


def test_room_ends_an_answer_that_does_not_stop(tiny: Tiny) -> None:
    model, rows, _, _ = made(tiny, "gpt2")
    found = generate(model, rows, Decoding(max_new=12), stop=[], limit=16)
    assert [len(one[0].ids) for one in found] == [min(12, 16 - n) for n in LENGTHS]
    assert not any(one[0].ended for one in found)


def test_a_row_without_room_or_words_is_refused(tiny: Tiny) -> None:
    model, rows, stop, _ = made(tiny, "gpt2")
    with pytest.raises(DataError) as error:
        generate(model, rows, GREEDY, stop=stop, limit=14)
    told(error, "Row 5 of 6 has 14 tokens", "reads 14 at most", "Shorten it")
    with pytest.raises(DataError, match="Row 1 of 1 has no token to begin with"):
        generate(model, [[]], GREEDY, stop=stop)


def test_a_source_longer_than_the_base_reads_is_refused(tiny: Tiny) -> None:
    model, rows, stop, _ = made(tiny, "marian")
    with pytest.raises(DataError, match="Row 5 of 6 has 14 tokens; the base reads sources of 13 at most"):
        generate(model, rows, GREEDY, stop=stop, limit=13)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"max_new": 0}, "`max_new` must be at least 1; it is 0"),
        ({"top_p": 0.0, "sample": True}, "`top_p` must be above 0 and at most 1"),
        ({"temperature": 0.5}, "`temperature` is 0.5 and belongs to sampling"),
        ({"best": 2}, "`best` must be at most `beams`"),
        ({"sample": True, "beams": 2}, "`sample` draws one answer a row"),
        ({"min_new": 9, "max_new": 3}, "`min_new` must be at most `max_new`"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be above 0"),
    ],
)
def test_settings_without_sense_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Decoding(**asked)
