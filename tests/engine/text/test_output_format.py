"""A model's tool-call family is recognised by its template and its added tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlx_lm import tokenizer_utils

from periscope.core import REASONING_PARSERS, TOOL_PARSERS, OutputFormat, ToolCallStyle
from periscope.engine.text.output_format import output_format_of, template_text
from tests.tiny_models import CHAT_TEMPLATE, write_tokenizer

QWEN3 = '<tool_call>\n{"name": "{{ tool_call.name }}"}\n</tool_call>'
GPT_OSS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|call|>", "<|return|>")


def format_of(folder: Path, template: str = CHAT_TEMPLATE, tokens: tuple[str, ...] = ()) -> OutputFormat:
    write_tokenizer(folder, template, tokens)
    return output_format_of(tokenizer_utils.load(folder))


@pytest.mark.parametrize(
    ("template", "tokens", "start", "style"),
    [
        # Known to mlx-lm.
        (QWEN3, (), "<tool_call>", ToolCallStyle.HERMES),
        ("<tool_call>\n<function={{ name }}>", (), "<tool_call>", ToolCallStyle.MARKED),
        ("<tool_call>{{ name }}<arg_key>", (), "<tool_call>", ToolCallStyle.MARKED),
        ("[TOOL_CALLS]", (), "[TOOL_CALLS]", ToolCallStyle.MARKED),
        ("[TOOL_CALLS]{{ name }}[ARGS]", (), "[TOOL_CALLS]", ToolCallStyle.MISTRAL),
        ("<|tool_call>call:<tool_call|>", (), "<|tool_call>", ToolCallStyle.MARKED),
        ("<start_function_call>", (), "<start_function_call>", ToolCallStyle.MARKED),
        # Not recognised by it: another spelling in the template, or the tokens alone.
        ("<tool_call>{{ call['name'] }}</tool_call>", (), "<tool_call>", ToolCallStyle.HERMES),
        (CHAT_TEMPLATE, ("<tool_call>", "</tool_call>"), "<tool_call>", ToolCallStyle.HERMES),
        (CHAT_TEMPLATE, ("<tool_call>", "</tool_call>", "<arg_key>"), "<tool_call>", ToolCallStyle.MARKED),
        (CHAT_TEMPLATE, ("[TOOL_CALLS]",), "[TOOL_CALLS]", ToolCallStyle.MARKED),
        (CHAT_TEMPLATE, ("[TOOL_CALLS]", "[ARGS]"), "[TOOL_CALLS]", ToolCallStyle.MISTRAL),
        (CHAT_TEMPLATE, ("<|tool_call>", "<tool_call|>"), "<|tool_call>", ToolCallStyle.MARKED),
        # Tuned from Llama, which has the token still.
        (QWEN3, ("<|python_tag|>",), "<tool_call>", ToolCallStyle.HERMES),
        # No parser in mlx-lm.
        (CHAT_TEMPLATE, ("<|python_tag|>", "<|eom_id|>"), None, ToolCallStyle.LLAMA),
        (CHAT_TEMPLATE, GPT_OSS, None, ToolCallStyle.HARMONY),
    ],
)
def test_each_family_is_recognised(
    tmp_path: Path, template: str, tokens: tuple[str, ...], start: str | None, style: ToolCallStyle
) -> None:
    """The markers in a family's template or vocabulary decide how its calls are parsed."""
    form = format_of(tmp_path, template, tokens)
    assert (form.tool_start, form.tool_call_style) == (start, style)
    assert form.has_tools
    assert (form.parse_tool_call is not None) == (start is not None)


def test_a_model_without_markers_has_no_tools(tmp_path: Path) -> None:
    """A model without any known marker gets the plain format."""
    assert format_of(tmp_path) == OutputFormat()
    assert not OutputFormat().has_tools


@pytest.mark.parametrize(
    ("template", "tokens", "markers"),
    [
        (CHAT_TEMPLATE, ("<think>", "</think>"), ("<think>", "</think>")),
        ("{{ m.content.split('</think>')[-1] }}", (), ("<think>", "</think>")),
        (CHAT_TEMPLATE, ("[THINK]", "[/THINK]"), ("[THINK]", "[/THINK]")),
        (CHAT_TEMPLATE, ("<|channel>", "<channel|>"), ("<|channel>thought", "<channel|>")),
        (CHAT_TEMPLATE, GPT_OSS, ("<|channel|>analysis<|message|>", "<|end|>")),
        (CHAT_TEMPLATE, (), (None, None)),
    ],
)
def test_the_markers_of_reasoning_are_recognised(
    tmp_path: Path, template: str, tokens: tuple[str, ...], markers: tuple[str | None, str | None]
) -> None:
    """They are found as single tokens or, if there are none, in the template."""
    form = format_of(tmp_path, template, tokens)
    assert (form.think_start, form.think_end) == markers


@pytest.mark.parametrize(
    ("template", "text"),
    [("a", "a"), ({"default": "a", "tool_use": "b"}, "a\nb"), (None, "")],
)
def test_a_template_may_be_one_or_several_or_none(template: Any, text: str) -> None:
    """The markers of all named templates are considered."""

    class Templated:
        chat_template = template

    assert template_text(Templated()) == text


def test_every_name_of_models_yaml_is_known(tmp_path: Path) -> None:
    """mlx-lm has the module of each tool parser, and each reasoning parser is a pair of markers, harmony or nothing."""
    write_tokenizer(tmp_path)
    tokenizer = tokenizer_utils.load(tmp_path)
    for name in TOOL_PARSERS:
        form = output_format_of(tokenizer, tool_parser=name)
        assert form.has_tools == (name != "none"), name
    for name in REASONING_PARSERS:
        form = output_format_of(tokenizer, reasoning_parser=name)
        assert (form.think_start is not None) == (name != "none"), name
        assert (form.think_end is None) == (form.think_start is None), name


def test_a_named_parser_wins_over_what_the_files_tell(tmp_path: Path) -> None:
    """Each of the two alone leaves the other as it is told; Harmony is both."""
    write_tokenizer(tmp_path, QWEN3 + "<think></think>")
    tokenizer = tokenizer_utils.load(tmp_path)
    own = output_format_of(tokenizer)
    assert (own.think_start, own.tool_call_style) == ("<think>", ToolCallStyle.HERMES)
    seed = output_format_of(tokenizer, reasoning_parser="seed_oss")
    assert (seed.think_start, seed.tool_start) == ("<seed:think>", "<tool_call>")
    llama = output_format_of(tokenizer, tool_parser="llama")
    assert (llama.think_start, llama.tool_call_style, llama.tool_start) == ("<think>", ToolCallStyle.LLAMA, None)
    coder = output_format_of(tokenizer, tool_parser="qwen3_coder", reasoning_parser="none")
    assert (coder.think_start, coder.tool_call_style) == (None, ToolCallStyle.MARKED)
    harmony = output_format_of(tokenizer, reasoning_parser="openai_gptoss")
    assert harmony.tool_call_style is ToolCallStyle.HARMONY


def test_a_named_parser_replaces_harmony(tmp_path: Path) -> None:
    """A model with the tokens of gpt-oss that was tuned to other markers."""
    write_tokenizer(tmp_path, CHAT_TEMPLATE, GPT_OSS)
    form = output_format_of(tokenizer_utils.load(tmp_path), tool_parser="hermes", reasoning_parser="think")
    assert (form.think_start, form.tool_call_style) == ("<think>", ToolCallStyle.HERMES)
