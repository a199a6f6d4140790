"""Templates: which tokens are learned, by hand and as transformers and TRL mask them."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from penjing.data.chat_templates import fitted, template_of
from penjing.data.messages import Conversation, Message
from penjing.errors import NotSupported, SpecError

Tiny = Callable[..., Path]
TALK = Conversation(
    (
        Message("system", "be brief"),
        Message("user", "my parcel is late"),
        Message("assistant", "which order ?"),
        Message("user", "order 12"),
        Message("assistant", "it is lost 我的快递"),
    )
)
CALLS = Conversation(
    (
        Message("user", "where is order 12 ?"),
        Message("assistant", "", (("find", '{"order": 12}'),)),
        Message("tool", "lost"),
        Message("assistant", "it is lost"),
    ),
    ('{"name": "find", "parameters": {}}',),
)
TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_of(tiny: Tiny, family: str, chat: str | None = "") -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    if chat != "":
        tokenizer.chat_template = chat
    return tokenizer


def runs(tokenizer: Any, ids: np.ndarray, learned: np.ndarray) -> list[str]:
    """The texts of the runs of learned tokens."""
    borders = np.flatnonzero(np.diff(np.concatenate([[False], learned, [False]]).astype(int)))
    return [tokenizer.decode(ids[a:b]) for a, b in zip(borders[::2], borders[1::2], strict=True)]


@pytest.mark.parametrize(
    ("family", "name", "stop"),
    [("qwen3", "auto", "<|im_end|>"), ("qwen3", "chatml", "<|im_end|>"), ("gpt2", "alpaca", "<|endoftext|>"),
     ("llama", "alpaca", "<|end_of_text|>")],
)  # fmt: skip
def test_replies_and_their_stop_tokens_are_learned_and_nothing_else(
    family: str, name: str, stop: str, tiny: Tiny
) -> None:
    tokenizer = tokenizer_of(tiny, family)
    written = template_of(tokenizer, name).write(TALK)
    wanted = [f"which order ?{stop}", f"it is lost 我的快递{stop}"]
    assert runs(tokenizer, written.ids, written.learned) == wanted


@pytest.mark.parametrize("name", ["chatml", "alpaca"])
def test_what_is_asked_with_is_how_training_began(name: str, tiny: Tiny) -> None:
    """The ids before a reply are those that serving gives."""
    template = template_of(tokenizer_of(tiny, "qwen3"), name)
    written = template.write(TALK)
    prompt = template.prompt(Conversation(TALK.messages[:-1]))
    assert prompt == written.ids[: written.replies[-1][0]].tolist()


def test_tool_calls_are_learned_and_their_answers_not(tiny: Tiny) -> None:
    tokenizer = tokenizer_of(tiny, "qwen3")
    template = template_of(tokenizer, "chatml")
    written = template.write(CALLS)
    call = '<tool_call>\n{"name": "find", "arguments": {"order": 12}}\n</tool_call><|im_end|>'
    assert runs(tokenizer, written.ids, written.learned) == [call, "it is lost<|im_end|>"]
    assert '{"name": "find", "parameters": {}}' in template.text(CALLS)


@pytest.mark.parametrize("chat", ["", TAGGED])
def test_a_reply_of_weight_0_is_read_and_not_learned(chat: str, tiny: Tiny) -> None:
    tokenizer = tokenizer_of(tiny, "qwen3", chat)
    mute = Conversation(tuple(replace(m, learned="lost" in m.content) for m in TALK.messages))
    template = template_of(tokenizer)
    whole, written = template.write(TALK), template.write(mute)
    assert [*written.ids] == [*whole.ids]
    assert (len(runs(tokenizer, whole.ids, whole.learned)), written.replies) == (2, whole.replies)
    (text,) = runs(tokenizer, written.ids, written.learned)
    assert "it is lost" in text


def test_what_was_thought_is_learned_where_the_template_writes_it(tiny: Tiny) -> None:
    thinking = Conversation((TALK.messages[1], replace(TALK.messages[2], thought="late")))
    chat = TAGGED.replace("{{ m.content }}", "{{ m.reasoning_content or '' }}|{{ m.content }}", 1)
    written = template_of(tokenizer_of(tiny, "qwen3", chat)).write(thinking)
    (learned,) = runs(tokenizer_of(tiny, "qwen3"), written.ids, written.learned)
    assert learned.startswith("late|which order ?")
    silent = template_of(tokenizer_of(tiny, "qwen3"), "chatml")
    assert not silent.thinks
    assert "late|" not in silent.text(thinking)


def test_masks_are_those_of_transformers_where_a_template_has_tags(tiny: Tiny) -> None:
    tokenizer = tokenizer_of(tiny, "qwen3", TAGGED)
    _equal_masks(tokenizer, TALK)


@pytest.mark.parametrize("name", ["qwen3_training", "qwen2_5_training", "llama3_training", "phi3_training"])
def test_masks_are_those_of_trl_token_by_token(name: str, tiny: Tiny) -> None:
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("trl is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    tokenizer = tokenizer_of(tiny, "qwen3", (folder / f"{name}.jinja").read_text(encoding="utf-8"))
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|eot_id|>", "<|end|>", "<|start_header_id|>"]}
    )
    tokenizer.bos_token = "<|im_start|>"
    _equal_masks(tokenizer, TALK)


def _equal_masks(tokenizer: Any, one: Conversation) -> None:
    """As TRL's SFTTrainer asks for them (`assistant_only_loss`)."""
    plain = [{"role": m.role, "content": m.content} for m in one.messages]
    theirs = tokenizer.apply_chat_template(
        plain, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = template_of(tokenizer).write(one)
    assert ours.ids.tolist() == theirs["input_ids"]
    assert ours.learned.astype(int).tolist() == theirs["assistant_masks"]
    assert sum(theirs["assistant_masks"]) > 0


def test_a_named_template_becomes_the_tokenizers_and_is_saved_with_it(tiny: Tiny, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tiny, "gpt2")
    text = template_of(tokenizer, "alpaca").text(TALK, ask=True)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    plain = [{"role": m.role, "content": m.content} for m in TALK.messages]
    assert again.apply_chat_template(plain, tokenize=False, add_generation_prompt=True) == text
    assert text == (
        "be brief\n\n### Instruction:\nmy parcel is late\n\n### Response:\nwhich order ?<|endoftext|>\n\n"
        "### Instruction:\norder 12\n\n### Response:\nit is lost 我的快递<|endoftext|>\n\n### Response:\n"
    )


def test_oldest_turns_leave_first_and_the_system_message_stays(tiny: Tiny) -> None:
    template = template_of(tokenizer_of(tiny, "qwen3"), "chatml")
    whole = len(template.write(TALK).ids)
    same, lost = fitted(template, TALK, whole)
    assert same is not None
    assert (len(same.ids), lost) == (whole, 0)
    short, lost = fitted(template, TALK, whole - 1)
    assert short is not None
    assert lost == 2
    text = template.tokenizer.decode(short.ids)
    assert "be brief" in text
    assert "order 12" in text
    assert "my parcel" not in text
    assert fitted(template, TALK, 10) == (None, 0)


# ---- what is refused


def test_a_missing_template_is_told_with_those_that_fit(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match=r"tokenizer has none.*template: alpaca.*fit: alpaca"):
        template_of(tokenizer_of(tiny, "gpt2"))
    with pytest.raises(NotSupported, match=r"template: chatml.*fit: chatml, alpaca"):
        template_of(tokenizer_of(tiny, "qwen3", None))


def test_a_template_whose_tokens_are_not_there_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match=r"lacks <\|im_start\|>, <\|im_end\|>.*`template: alpaca`"):
        template_of(tokenizer_of(tiny, "gpt2"), "chatml")
    with pytest.raises(SpecError, match=r"'chatlm'; known are auto, chatml.*Did you mean `chatml`"):
        template_of(tokenizer_of(tiny, "gpt2"), "chatlm")


def test_a_template_without_a_stop_token_is_refused(tiny: Tiny) -> None:
    bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(NotSupported, match=r"token that stops a reply was wanted.*no special token"):
        template_of(tokenizer_of(tiny, "qwen3", bare))


def test_a_template_that_writes_no_tool_calls_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match=r"was to write the reply 'find' as it is.*never be learned"):
        template_of(tokenizer_of(tiny, "qwen3")).write(CALLS)


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny: Tiny) -> None:
    last = (
        "{% for m in messages %}<|im_start|>{{ m.content if loop.last else m.content[:3] }}<|im_end|>"
        "{% endfor %}"
    )
    with pytest.raises(NotSupported, match=r"writes message \d otherwise when more follow"):
        template_of(tokenizer_of(tiny, "qwen3", last)).write(TALK)


def test_a_template_that_refuses_roles_is_told(tiny: Tiny) -> None:
    picky = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(NotSupported, match=r"system · user.*it refuses: no system"):
        template_of(tokenizer_of(tiny, "qwen3", picky)).text(TALK)
