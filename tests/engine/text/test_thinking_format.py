"""What is written to end a model's thinking: what its own template writes there."""

from __future__ import annotations

import jinja2
import pytest

from periscope.core import JSONObject, OutputFormat, ToolCallStyle
from periscope.engine.text.template_fit import Render
from periscope.engine.text.thinking_format import ThinkingFormat, thinking_format

THINK = OutputFormat("<think>", "</think>", "<tool_call>", "</tool_call>")
MISTRAL = OutputFormat("[THINK]", "[/THINK]")
HARMONY = OutputFormat("<|channel|>analysis<|message|>", "<|end|>", tool_call_style=ToolCallStyle.HARMONY)
QWEN = (
    "{% for m in messages %}{% if m.role == 'assistant' and m.reasoning_content %}<think>\n"
    "{{ m.reasoning_content.strip('\n') }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
)
TIGHT = QWEN.replace("<think>\n", "[THINK]").replace("\n</think>\n\n", "[/THINK]")
ONE_LINE = QWEN.replace("\n</think>\n\n", "</think>\n")
FORGETFUL = "{% for m in messages %}{{ m.content }}<|im_end|>\n{% endfor %}"
PICKY = "{{ raise_exception('no') }}"


def rendering(template: str) -> Render:
    def render(messages: list[JSONObject], tools: list[JSONObject]) -> str:
        return jinja2.Environment(autoescape=False).from_string(template).render(messages=messages, tools=tools)  # noqa: S701

    return render


def made(output_format: OutputFormat, template: str | None, message: str = "") -> ThinkingFormat | None:
    return thinking_format(
        output_format,
        lambda text: [ord(letter) for letter in text],
        None if template is None else rendering(template),
        reasoning_keys=("reasoning_content",),
        message=message,
    )


def text_of(token_ids: tuple[int, ...]) -> str:
    return "".join(map(chr, token_ids))


@pytest.mark.parametrize(
    ("output_format", "template", "ending"),
    [
        (THINK, QWEN, "\n</think>\n\n"),
        (THINK, ONE_LINE, "</think>\n"),
        (MISTRAL, TIGHT, "[/THINK]"),
        (THINK, FORGETFUL, "\n</think>\n\n"),
        (THINK, PICKY, "\n</think>\n\n"),
        (THINK, None, "\n</think>\n\n"),
        (MISTRAL, FORGETFUL, "[/THINK]"),
    ],
)
def test_the_ending_is_the_templates_own(output_format: OutputFormat, template: str | None, ending: str) -> None:
    """With its habit of newlines; where the template shows none, that of most models with such markers."""
    known = made(output_format, template)
    assert known is not None
    assert [text_of(tokens) for tokens in known.endings] == [ending]
    assert known.endings_before_calls == known.endings
    assert (known.call_start, known.call_end) == (output_format.tool_start or "", output_format.tool_end or "")


def test_a_sentence_stands_before_the_marker() -> None:
    """On a line of its own."""
    known = made(THINK, QWEN, "Time is up.")
    assert known is not None
    assert text_of(known.endings[0]) == "\n\nTime is up.\n</think>\n\n"


def test_gpt_oss_goes_on_in_its_final_channel() -> None:
    """Unless it may call: then it chooses its channel itself, once."""
    known = made(HARMONY, None)
    assert known is not None
    final = "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert [text_of(tokens) for tokens in known.endings] == [final]
    assert [text_of(tokens) for tokens in known.endings_before_calls] == ["<|end|><|start|>assistant", final]


def test_a_model_without_an_end_marker_has_nothing_to_end() -> None:
    """Nothing is forced on it."""
    assert made(OutputFormat(), QWEN) is None
