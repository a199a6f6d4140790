"""What clients of OpenAI's routes send without asking for anything by it."""

from __future__ import annotations

from typing import Any

# What clients send unasked, and the values of it that change nothing; with another each is refused.
IDLE: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "max_tokens": (),
    "modalities": (["text"],),
    "n": (),
    "parallel_tool_calls": (False, True),
    "presence_penalty": (0, 0.0),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "stream": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}


def without_idle(given: Any) -> Any:
    """A request without what asks for nothing: nulls and values of `IDLE`."""
    if not isinstance(given, dict):
        return given

    def idle(key: str, value: Any) -> bool:
        # Not `in`: True is 1, and False 0.
        same = any(type(value) is type(one) and value == one for one in IDLE.get(key, ()))
        return key in IDLE and (value is None or same)

    return {key: value for key, value in given.items() if not idle(key, value)}
