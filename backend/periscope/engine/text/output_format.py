"""Detects how a model marks reasoning and tool calls from its chat template and added tokens. Pure.

mlx-lm detects most families. This adds those it has no parser for, and those it does not recognise by the template.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from periscope.core import OutputFormat, ToolCallStyle

#: The reasoning markers of Harmony. `HarmonyParser` knows the other markers.
_HARMONY = OutputFormat(
    think_start="<|channel|>analysis<|message|>", think_end="<|end|>", tool_call_style=ToolCallStyle.HARMONY
)
_HARMONY_CLUES = ("<|channel|>", "<|message|>", "<|call|>")

#: Pairs mlx-lm does not look for, or only as single tokens.
_THINK_PAIRS = {
    "think": ("<think>", "</think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "seed_oss": ("<seed:think>", "</seed:think>"),
}
#: Name of a reasoning parser -> its family: a pair of markers, `harmony` or `none`.
_REASONING_NAMES = {
    **{name: name for name in (*_THINK_PAIRS, "harmony", "none")},
    **dict.fromkeys(("deepseek_r1", "glm45", "qwen3"), "think"),
    "openai_gptoss": "harmony",
}


#: (strings in the template or among the added tokens that identify a family, its module in mlx_lm.tool_parsers).
#: Used if mlx-lm recognises no parser. The first row with all strings present wins, so specific rows come first.
_FAMILIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<minimax:tool_call>",), "minimax_m2"),
    (("<|tool_call>", "<tool_call|>"), "gemma4"),
    (("<start_function_call>",), "function_gemma"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("<tool_call>", "<arg_key>"), "glm47"),
    (("<tool_call>", "<function="), "qwen3_coder"),
    (("<tool_call>", "</tool_call>"), "json_tools"),
    (("[TOOL_CALLS]",), "mistral"),
)
#: In every Llama from 3.1 on. Llamas that were tuned to another call format match a row of the table above.
_LLAMA_CLUE = "<|python_tag|>"
#: In Mistral's models since 2025. Earlier ones write calls as a JSON array.
_MISTRAL_CLUE = "[ARGS]"


def output_format_of(
    tokenizer: Any, tool_parser: str | None = None, reasoning_parser: str | None = None
) -> OutputFormat:
    """The output format of the model behind mlx-lm's `TokenizerWrapper`. Explicit entries of its files win.

    Args:
        tool_parser, reasoning_parser: names of `core/parsers.py`, in place of what the files tell. Reasoning and calls
            of gpt-oss are one format, which either of them chooses.
    """
    told = _told_format(tokenizer)
    if "harmony" in (tool_parser, _REASONING_NAMES.get(reasoning_parser or "")):
        return _HARMONY
    if told is _HARMONY and (tool_parser or reasoning_parser):
        told = OutputFormat()  # what is not named is not Harmony's either
    if reasoning_parser is not None:
        start, end = _THINK_PAIRS.get(_REASONING_NAMES[reasoning_parser], (None, None))
        told = replace(told, think_start=start, think_end=end)
    return told if tool_parser is None else _with_tool_parser(told, tool_parser, tokenizer)


def _with_tool_parser(told: OutputFormat, name: str, tokenizer: Any) -> OutputFormat:
    """The format with the calls of this parser."""
    bare = OutputFormat(told.think_start, told.think_end)
    if name in ("none", "llama"):
        return replace(bare, tool_call_style=ToolCallStyle.LLAMA if name == "llama" else ToolCallStyle.MARKED)
    text = "\n".join([template_text(tokenizer), *tokenizer.get_added_vocab()])
    return _with_module(bare, "json_tools" if name == "hermes" else name, text)


def _told_format(tokenizer: Any) -> OutputFormat:
    text = "\n".join([template_text(tokenizer), *tokenizer.get_added_vocab()])
    parser = _parser_module(tokenizer, text)
    if parser is None and all(clue in text for clue in _HARMONY_CLUES):
        return _HARMONY
    think_start, think_end = _think_markers(tokenizer, text)
    if parser is None:
        style = ToolCallStyle.LLAMA if _LLAMA_CLUE in text else ToolCallStyle.MARKED
        return OutputFormat(think_start, think_end, tool_call_style=style)
    return _with_module(OutputFormat(think_start, think_end), parser, text)


def _with_module(told: OutputFormat, parser: str, text: str) -> OutputFormat:
    """The format with the calls that a module of mlx-lm reads."""
    module = importlib.import_module(f"mlx_lm.tool_parsers.{parser}")
    return replace(
        told,
        tool_start=module.tool_call_start,
        tool_end=module.tool_call_end,
        parse_tool_call=module.parse_tool_call,
        tool_call_style=_style_of(parser, text),
    )


def hermes_calls(own: OutputFormat) -> OutputFormat:
    """The format of a model whose prompt holds tools as text (`tool_text`): its own reasoning, calls as in Hermes."""
    if own.tool_call_style is ToolCallStyle.HERMES:
        return own
    return _with_module(OutputFormat(own.think_start, own.think_end), "json_tools", "")


def template_text(tokenizer: Any) -> str:
    """The model's chat template, or all of them; empty when it is code or missing."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return "\n".join(str(text) for text in template.values())
    return template if isinstance(template, str) else ""


def default_template(tokenizer: Any) -> str | None:
    """The model's chat template, of several the one for plain chats; None when it is code or missing."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) and template else None


def _style_of(parser: str, text: str) -> ToolCallStyle:
    if parser == "json_tools":
        return ToolCallStyle.HERMES
    return ToolCallStyle.MISTRAL if parser == "mistral" and _MISTRAL_CLUE in text else ToolCallStyle.MARKED


def _think_markers(tokenizer: Any, text: str) -> tuple[str | None, str | None]:
    if tokenizer.has_thinking:
        return tokenizer.think_start, tokenizer.think_end
    return next((pair for pair in _THINK_PAIRS.values() if any(marker in text for marker in pair)), (None, None))


def _parser_module(tokenizer: Any, text: str) -> str | None:
    if tokenizer.tool_parser is not None:
        return str(tokenizer.tool_parser.__module__.rpartition(".")[2])
    return next((parser for clues, parser in _FAMILIES if all(clue in text for clue in clues)), None)
