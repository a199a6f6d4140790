"""Whatever a model would say, its answer has the form asked for, and ends."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import told, words
from penjing.errors import DataError, NotSupported, SpecError
from penjing.models.decoding import Decoding
from penjing.models.forms import form_of, rule_of
from penjing.models.generate import generate, stream
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.spelling import spelling_of
from penjing.models.word_head import word_head

Tiny = Callable[..., Path]
TICKET = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["billing", "delivery", "退款"]},
        "order": {"type": "integer", "minimum": 10, "maximum": 999},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
        "late": {"type": "boolean"},
    },
    "required": ["kind", "order", "words"],
}
PATTERNS = [r"[A-Z]{2}-\d{3,}", r"(?:yes|no|perhaps not)(?:, .+)?", r"a*b", r"[^a]+"]
WORDS = [r"[a-z]{3}(?: on)?", r"a*b", r"[^a]+"]  # of a tokenizer without signs
HOW = {
    "greedy": Decoding(max_new=60),
    "beams": Decoding(max_new=60, beams=3),
    "sampled": Decoding(max_new=60, sample=True, temperature=3.0, seed=3),
    "without repeats": Decoding(max_new=60, no_repeat=1, repetition_penalty=3.0, min_new=60),
}


def made(tiny: Tiny, name: str) -> tuple[Model, Any, list[list[int]], int]:
    base = load(str(tiny(name)), whole=True)
    head, _ = word_head(base, "answer" if base.kind == "encoder-decoder" else "causal", weights=True)
    rows = [row.tolist() for row in words(base, 12).split([3, 7, 2])]
    return Model(base.trunk, head, base.way).prepare("fp32").eval(), base, rows, base.tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["gpt2", "marian", pytest.param("llama", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "how",
    [
        "greedy",
        "sampled",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("beams", "without repeats")),
    ],
)
def test_every_answer_is_json_that_the_schema_takes_or_what_the_pattern_matches(
    tiny: Tiny, name: str, how: str
) -> None:
    import jsonschema

    model, base, rows, stop = made(tiny, name)
    forms: list[dict[str, Any]] = [{"regex": one} for one in (WORDS if name == "marian" else PATTERNS)]
    for form in forms if name == "marian" else [{"schema": TICKET}, *forms]:
        rule = rule_of(base.tokenizer, form_of(form), [stop])
        for one, *_ in generate(model, rows, HOW[how], stop=[stop], limit=base.limit, allow=rule.allow):
            text = rule.text(one.ids)
            assert one.ended
            assert text == base.tokenizer.decode(one.ids)
            if "schema" in form:
                jsonschema.validate(rule.more(text)["value"], TICKET)
            else:
                assert re.fullmatch(form["regex"], text)


@pytest.mark.parametrize("room", range(2, 40, 3))
def test_an_answer_ends_in_whatever_room_there_is_or_the_room_is_refused(tiny: Tiny, room: int) -> None:
    model, base, rows, stop = made(tiny, "gpt2")
    schema = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
    rule = rule_of(base.tokenizer, form_of({"schema": schema}), [stop])
    how = Decoding(max_new=room, sample=True, seed=room)
    least = len(base.tokenizer('{"said":""}').input_ids) + 1
    if room < least:
        with pytest.raises(DataError) as error:
            generate(model, rows, how, stop=[stop], allow=rule.allow)
        told(error, f"needs at least {least} tokens, its stop token among them; {room} are left", "Raise")
        return
    for (one,) in generate(model, rows, how, stop=[stop], allow=rule.allow):
        assert one.ended
        assert isinstance(json.loads(rule.text(one.ids))["said"], str)


def test_a_stream_keeps_to_a_form(tiny: Tiny) -> None:
    model, base, rows, stop = made(tiny, "gpt2")
    rule = rule_of(base.tokenizer, form_of({"regex": "[0-9]{4}"}), [stop])
    said = [*stream(model, rows[0], Decoding(max_new=9), stop=[stop], allow=rule.allow)]
    assert re.fullmatch("[0-9]{4}", rule.text(said))


def test_what_the_form_leaves_open_is_said_by_score(tiny: Tiny) -> None:
    """Of the tokens that may come, the likeliest does: a form that takes all changes nothing."""
    model, base, rows, stop = made(tiny, "gpt2")
    free = generate(model, rows, Decoding(max_new=8), stop=[stop])
    rule = rule_of(base.tokenizer, form_of({"regex": r"(?:(?s:.))*"}), [stop])
    bound = generate(model, rows, Decoding(max_new=40), stop=[stop], allow=rule.allow)
    for (one,), (other,) in zip(free, bound, strict=True):
        if "�" not in base.tokenizer.decode(one.ids):
            assert other.ids[: len(one.ids)] == one.ids


@pytest.mark.parametrize("name", ["gpt2", "marian", "bert"])
def test_choices_work_with_any_tokenizer(tiny: Tiny, name: str) -> None:
    base = load(str(tiny(name)))
    stop = base.tokenizer.eos_token_id or base.tokenizer.sep_token_id
    rule = rule_of(base.tokenizer, form_of({"choices": ["billing", "on order", "late"]}), [stop])
    said = [*rule.allow([], 20)][-1:]
    while said[-1] != stop:
        said += [*rule.allow(said, 20)][:1]
    assert rule.text(said[:-1]) in ("billing", "on order", "late")


def test_choices_that_do_not_fit_are_left_out_and_refused_where_none_does(tiny: Tiny) -> None:
    base = load(str(tiny("gpt2")))
    stop = base.tokenizer.eos_token_id
    rule = rule_of(base.tokenizer, form_of({"choices": ["xyxyxyxy", "zq"]}), [stop])
    assert len(rule.allow([], 9)) == 2
    assert len(rule.allow([], 3)) == 1
    with pytest.raises(DataError) as error:
        rule.allow([], 2)
    told(error, "the shortest has 3 tokens", "2 are left", "Raise `max_new`")


@pytest.mark.parametrize("name", ["gpt2", "llama", "marian", "t5"])
def test_tokens_are_spelled_as_the_tokenizer_does(tiny: Tiny, name: str) -> None:
    base = load(str(tiny(name)), whole=True)
    spelling = spelling_of(base.tokenizer)
    for text in ("my card was charged twice on order 17", "密码忘记了怎么办"):
        ids = base.tokenizer(text, add_special_tokens=False).input_ids
        if base.tokenizer.unk_token_id not in ids or name == "gpt2":
            assert spelling.text(ids) == text


def test_word_pieces_are_no_pieces_of_a_text(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    with pytest.raises(NotSupported) as error:
        rule_of(base.tokenizer, form_of({"regex": "a+"}), [base.tokenizer.sep_token_id])
    told(error, "whose tokens are pieces of the text", "this one makes", "choices")


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ("yes|no", ["one of `schema`, `regex` and `choices`", "'yes|no'"]),
        ({"regexp": "a"}, ["Did you mean `regex`?"]),
        ({"regex": 3}, ["`regex` must be a text", "Put the pattern in quotes"]),
        ({"choices": "yes"}, ["`choices` must be a list of texts", "[yes, no]"]),
        ({"choices": [True]}, ["`choices` must be a list of texts"]),
    ],
)
def test_what_is_no_form_is_refused(form: Any, parts: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        form_of(form)
    told(error, *parts)


@pytest.mark.parametrize(
    "form", [{"choices": ["caf\udce9", "b"]}, {"schema": {"enum": ["\ud83d"]}}, {"regex": "\ud83d"}]
)
def test_half_of_a_character_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"was to be Unicode; it has half of a character \(\\ud"):
        form_of(form)


def test_a_form_that_no_text_has_and_a_base_that_never_ends_are_refused(tiny: Tiny) -> None:
    base = load(str(tiny("gpt2")))
    none = form_of({"schema": {"type": "integer", "minimum": 3, "maximum": 2}})
    with pytest.raises(SpecError) as error:
        rule_of(base.tokenizer, none, [0])
    told(error, "no text has it", "Mend the form")
    with pytest.raises(NotSupported, match="has no token that ends a text"):
        rule_of(base.tokenizer, form_of({"regex": "a"}), [])
    with pytest.raises(NotSupported, match="has characters that this base's tokenizer has no token for"):
        rule_of(load(str(tiny("marian")), whole=True).tokenizer, form_of({"schema": TICKET}), [1])
