"""The chat templates that are built in, tool calls and all; tokenizers that are learnt for chats have one."""

_TOOLS = (
    "{%- if tools %}{{ '\\n\\n' if system else '' }}You may call these tools, as JSON within "
    "<tool_call></tool_call>:\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
)
_CALLS = (
    "{%- for call in m.tool_calls or [] %}{{ '\\n' if m.content or not loop.first else '' }}<tool_call>\n"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n"
    "</tool_call>{% endfor %}"
)
_FIRST = "{%- set system = messages[0].content if messages and messages[0].role == 'system' else '' %}"
_REST = "{%- for m in messages %}{% if m.role != 'system' %}"

NAMED = {
    "chatml": (
        _FIRST + "{%- if system or tools %}<|im_start|>system\n{{ system }}" + _TOOLS
        + "<|im_end|>\n{% endif %}"
        + _REST + "<|im_start|>{{ m.role }}\n{{ m.content }}" + _CALLS + "<|im_end|>\n{% endif %}{% endfor %}"
        "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama": (
        _FIRST + "{%- if system or tools %}<|start_header_id|>system<|end_header_id|>\n\n{{ system }}"
        + _TOOLS
        + "<|eot_id|>{% endif %}" + _REST
        + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}" + _CALLS
        + "<|eot_id|>{% endif %}{% endfor %}"
        "{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "alpaca": (
        _FIRST + "{%- if system or tools %}{{ system }}" + _TOOLS
        + "{{ '\n\n' }}{% endif %}" + _REST
        + "{%- if m.role == 'assistant' %}### Response:\n{{ m.content }}" + _CALLS + "{{ eos_token }}"
        "{% else %}### {{ 'Instruction' if m.role == 'user' else 'Input' }}:\n{{ m.content }}{% endif %}"
        "{{ '\n\n' }}{% endif %}{% endfor %}{%- if add_generation_prompt %}### Response:\n{% endif %}"
    ),
}  # fmt: skip
MARKS = {  # tokens that a named template is made of
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "alpaca": (),
}
