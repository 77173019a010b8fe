"""Short chat templates with the properties of model families: how they render messages, and what they drop."""

from __future__ import annotations

_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_EACH = "{% for m in messages %}"
_CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ {'name': c.function.name, 'arguments': c.function.arguments}"
    "|tojson }}\n</tool_call>{% endfor %}"
)
_TOOLS = "{% if tools %}<|im_start|>system\nTools: {{ tools|tojson }}<|im_end|>\n{% endif %}"
_ALTERNATE = (
    "{% set turn = namespace(n=0) %}{% for m in messages %}{% if m.role == 'user' or m.role == 'assistant' and not "
    "m.tool_calls %}{% if (m.role == 'user') != (turn.n % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
    "{% set turn.n = turn.n + 1 %}{% endif %}{% endfor %}"
)

SHAPES = {
    # A default system prompt, every message as it comes, no tools (SmolLM2, Qwen 1, most tuned on ChatML).
    "plain chatml": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        f"{_EACH}{{{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}}}{{% endfor %}}{_OPEN}"
    ),
    # Tools in the system message, calls and results of its own (Qwen 2.5, Hermes).
    "hermes": (
        "{% if tools %}<|im_start|>system\n{{ messages[0].content if messages[0].role == 'system' else 'You help.' }}"
        "<tools>{% for t in tools %}{{ t|tojson }}{% endfor %}</tools><|im_end|>\n"
        "{% elif messages[0].role == 'system' %}"
        "<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
        f"{_EACH}"
        f"{{% if m.role != 'system' or not loop.first %}}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}{_CALLS}"
        f"<|im_end|>\n{{% endif %}}{{% endfor %}}{_OPEN}"
    ),
    # Calls instead of text, and one at a time (Llama 3).
    "calls only": (
        f"{_TOOLS}{_EACH}{{% if m.tool_calls %}}"
        f"{{% if m.tool_calls|length != 1 %}}{{{{ raise_exception('one call') }}}}"
        "{% endif %}<|im_start|>assistant\n{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments"
        "|tojson }}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _OPEN
    ),
    # Turns must alternate, tools stand before the last question, ids have nine letters, no text beside calls (Mistral).
    "alternating": (
        _ALTERNATE
        + "{% set users = messages|selectattr('role', 'equalto', 'user')|list %}"
        + _EACH
        + "{% if m.role == 'user' %}"
        "{% if tools and m == users[-1] %}[TOOLS]{{ tools|tojson }}{% endif %}[INST]{{ m.content }}[/INST]"
        "{% elif m.role == 'system' %}{% if not loop.first %}{{ raise_exception('system first') }}"
        "{% endif %}[SYS]{{ m.content }}"
        "{% elif m.tool_calls %}{% for c in m.tool_calls %}"
        "{% if c.id|length != 9 %}{{ raise_exception('id') }}{% endif %}"
        "[CALL]{{ c.function|tojson }}{{ c.id }}{% endfor %}"
        "{% elif m.role == 'tool' %}[RESULT]{{ m.content }}{{ m.tool_call_id }}"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    # No system role, turns must alternate, nothing of tools (Gemma 1 and 2).
    "no system": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{% if "
        "(m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
        + _TURN
        + "{% endfor %}"
        + _OPEN
    ),
    # The system message goes into the first user message (Gemma 3).
    "system in user": (
        "{% set s = messages[0].content + '\n' if messages[0].role == 'system' else '' %}"
        "{% set rest = messages[1:] if s "
        "else messages %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('alternate') }}"
        "{% endif %}<start>{{ m.role }}\n{{ s if loop.first }}{{ m.content|trim }}<end>\n{% endfor %}"
    ),
    # Only known roles are written, and only the last system message (many tuned by hand).
    "last system": (
        "{% set s = namespace(t='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set s.t = m.content %}{% endif %}"
        "{% endfor %}SYSTEM: {{ s.t }}\n{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}\n"
        "{% elif m.role == 'assistant' %}ASSISTANT: {{ m.content }}</s>\n{% endif %}{% endfor %}ASSISTANT:"
    ),
    # The system role is passed over.
    "deaf to system": f"{_EACH}{{% if m.role in ('user', 'assistant') %}}{_TURN}{{% endif %}}{{% endfor %}}{_OPEN}",
    # An answer is written behind its question (Alpaca, Llama 2): one that comes first is passed over.
    "pairs": (
        "{% set p = namespace(q=none) %}{% for m in messages %}{% if m.role == 'user' %}{% set p.q = m.content %}"
        "[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' and p.q is not none %} {{ m.content }} </s>{% set p.q = none %}"
        "{% elif m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>{% endif %}{% endfor %}"
    ),
    # Names of tools without what they are for.
    "names of tools": f"{{% for t in tools or [] %}}Tool: {{{{ t.function.name }}}}\n{{% endfor %}}{_EACH}<|im_start|>"
    f"{{{{ m.role }}}}\n{{{{ m.content }}}}{_CALLS}<|im_end|>\n{{% endfor %}}{_OPEN}",
    # Names and descriptions without parameters.
    "no parameters": "{% for t in tools or [] %}{{ t.function.name }}: {{ t.function.description }}\n{% endfor %}"
    f"{_EACH}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}{_CALLS}<|im_end|>\n{{% endfor %}}{_OPEN}",
    # Tools only where there is a system message to hold them.
    "tools in system": f"{_EACH}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}"
    "{% if m.role == 'system' and tools %}{{ tools|tojson }}{% endif %}"
    f"{_CALLS}<|im_end|>\n{{% endfor %}}{_OPEN}",
    # Reasoning of earlier turns is left out, a call has it and text beside it (Qwen 3, gpt-oss).
    "reasoning": (
        f"{_TOOLS}{_EACH}<|im_start|>{{{{ m.role }}}}{{{{ ' ' ~ m.name if m.name }}}}\n"
        f"{{% if m.reasoning_content and loop.last %}}"
        f"<think>{{{{ m.reasoning_content }}}}</think>"
        f"{{% endif %}}{{{{ m.content }}}}{_CALLS}<|im_end|>\n{{% endfor %}}{_OPEN}"
    ),
    # The last three messages (a memory kept short by its author): longer conversations cannot be carried.
    "short memory": f"{{% for m in messages[-3:] %}}{_TURN}{{% endfor %}}{_OPEN}",
    # One question, as for a retrieval model.
    "last only": "Question: {{ messages[-1].content }}\nAnswer:",
    "always no": "{{ raise_exception('never') }}",
}
