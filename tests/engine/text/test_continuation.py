"""A turn that is left open: the prompt ends with the client's words, in the place where the template puts answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from periscope.core import Message, Role, TextPart
from periscope.engine.text.chat_template import RenderedPrompt
from periscope.errors import InvalidRequest
from tests.engine.text.test_chat_template import assistant, chat_tokenizer, system, user
from tests.tiny_models import CHAT_TEMPLATE

_OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{{ opening }}{% endif %}"
#: As Qwen3: reasoning of the last answer only, an empty block if it has none, text trimmed.
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}<think>\n{{ (m.reasoning_content or '').strip('\n') }}\n</think>\n\n{% endif %}{{ said }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + _OPEN
)
#: As DeepSeek R1: it opens the think block, and writes no reasoning of any answer.
OPENS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
#: As gpt-oss.
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant"
    "{% endif %}"
    "<|channel|>final{% endif %}<|message|>{{ m.content }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{# <|call|> #}{% endif %}"
)
#: Takes no answer at the end, and trims.
ASKED = (
    "{% if messages[-1].role == 'assistant' %}{{ raise_exception('The user must be last') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}" + _OPEN
)
ASK = "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"


def opened(folder: Path, template: str, last: Message, *before: Message) -> tuple[str, RenderedPrompt]:
    tokenizer = chat_tokenizer(folder, template)
    prompt = tokenizer.render([*(before or [user("Where?")]), last], continues=True)
    assert prompt.continues_text
    return tokenizer.decode(prompt.token_ids), prompt


@pytest.mark.parametrize(
    ("template", "last", "expected", "in_reasoning"),
    [
        (CHAT_TEMPLATE, assistant(" In "), f"{ASK} In ", False),
        (QWEN, assistant(" In "), f"{ASK}<think>\n\n</think>\n\n In ", False),
        (QWEN, assistant("In", reasoning="Hm."), f"{ASK}<think>\nHm.\n</think>\n\nIn", False),
        (QWEN, assistant(reasoning="Hm, "), f"{ASK}<think>\nHm, ", True),
        (QWEN, assistant("<think>\nHm, "), f"{ASK}<think>\nHm, ", True),
        (QWEN, assistant("<think>Hm.</think> In"), f"{ASK}<think>Hm.</think> In", False),
        (OPENS, assistant(" In "), f"{ASK} In ", False),
        (OPENS, assistant("In", reasoning="Hm."), f"{ASK}<think>\nHm.\n</think>\n\nIn", False),
        (OPENS, assistant(reasoning="Hm, "), f"{ASK}<think>\nHm, ", True),
        (OPENS, assistant("<think>\nHm, "), f"{ASK}<think>\nHm, ", True),
        (ASKED, assistant(" In "), f"{ASK} In ", False),
    ],
)
def test_the_prompt_ends_with_the_words_as_they_are(
    tmp_path: Path, template: str, last: Message, expected: str, *, in_reasoning: bool
) -> None:
    """Untrimmed, in the place of answers, and with one think block at most."""
    text, prompt = opened(tmp_path, template, last)
    assert text == expected
    assert prompt.starts_in_reasoning is in_reasoning


@pytest.mark.parametrize(
    ("last", "expected", "in_reasoning"),
    [
        (assistant("In "), "<|channel|>final<|message|>In ", False),
        (
            assistant("In ", reasoning="Hm."),
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>In ",
            False,
        ),
        (assistant(reasoning="Hm, "), "<|channel|>analysis<|message|>Hm, ", True),
    ],
)
def test_an_answer_stands_in_its_channel(tmp_path: Path, last: Message, expected: str, *, in_reasoning: bool) -> None:
    """Harmony's messages are not written one into the other."""
    text, prompt = opened(tmp_path, HARMONY, last)
    assert text == f"<|start|>user<|message|>Where?<|end|><|start|>assistant{expected}"
    assert prompt.starts_in_reasoning is in_reasoning


def test_a_template_that_opens_thinking_and_takes_no_answer_gets_it_behind_an_empty_block(tmp_path: Path) -> None:
    """The model answers, as it was asked to."""
    template = ASKED.replace("{{ opening }}", "<think>\n")
    text, prompt = opened(tmp_path, template, assistant("In"))
    assert text == f"{ASK}<think>\n\n</think>\n\nIn"
    assert not prompt.starts_in_reasoning


def test_reasoning_alone_needs_a_model_that_reasons(tmp_path: Path) -> None:
    """Else it would vanish."""
    with pytest.raises(InvalidRequest, match="writes no reasoning"):
        opened(tmp_path, CHAT_TEMPLATE, assistant(reasoning="Hm."))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(said=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, QWEN, OPENS, ASKED])
def test_no_word_of_any_text_is_lost(tmp_path_factory: pytest.TempPathFactory, template: str, said: str) -> None:
    """Also one that occurs earlier in the conversation, and one of spaces."""
    last = Message(Role.ASSISTANT, (TextPart(said),))
    text, _ = opened(tmp_path_factory.getbasetemp(), template, last, system(said), user(said))
    assert text.endswith(said)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, ASKED])
def test_the_state_before_the_words_can_be_kept(tmp_path: Path, template: str) -> None:
    """A model whose caches cannot be trimmed keeps it, for an answer that begins in another way."""
    tokenizer = chat_tokenizer(tmp_path, template, wants_checkpoints=True)
    prompt = tokenizer.render([user("Where?"), assistant("In")], continues=True)
    assert all(0 < length < len(prompt.token_ids) for length in prompt.checkpoints)
    kept = tokenizer.decode(prompt.token_ids[: prompt.checkpoints[-1]])
    assert kept in (ASK, ASK.removesuffix("<|im_start|>assistant\n"))
