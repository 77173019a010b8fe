"""`OutputParser` with the tool parsers of the installed mlx-lm, a transcript per model family."""

from __future__ import annotations

import importlib
import pkgutil

import mlx_lm.tool_parsers
import pytest

from periscope.core import TOOL_PARSERS, OutputFormat, Tool, ToolCall
from periscope.parsing.stream import OutputParser
from tests.parsing.events import Called, events_from

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}

TOOLS = (Tool("weather", "The weather of the next days.", SCHEMA), Tool("time"))

#: mlx-lm module -> what its models write for a call of `weather` with the same arguments.
TRANSCRIPTS = {
    "json_tools": '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>',
    "mistral": '[TOOL_CALLS]weather[ARGS]{"city": "Oslo", "days": 2}',
    "qwen3_coder": (
        "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
    ),
    "glm47": (
        "<tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
        "<arg_key>days</arg_key><arg_value>2</arg_value></tool_call>"
    ),
    "gemma4": '<|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:2}<tool_call|>',
    "function_gemma": ("<start_function_call>call:weather{city:<escape>Oslo<escape>,days:2}<end_function_call>"),
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Oslo", "days": 2}<|tool_call_end|><|tool_calls_section_end|>'
    ),
    "minimax_m2": (
        '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>'
    ),
    "minicpm5": ('<function name="weather"><param name="city">Oslo</param><param name="days">2</param></function>'),
    "pythonic": '<|tool_call_start|>[weather(city="Oslo", days=2)]<|tool_call_end|>',
    "longcat": (
        "<longcat_tool_call>weather\n<longcat_arg_key>city</longcat_arg_key>\n"
        "<longcat_arg_value>Oslo</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n"
        "<longcat_arg_value>2</longcat_arg_value>\n</longcat_tool_call>"
    ),
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="weather" index="1"<|sep|>'
        '<|open|>argument key="city" type="string"<|sep|>Oslo<|close|>argument<|sep|>'
        '<|open|>argument key="days" type="integer"<|sep|>2<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|>"
    ),
    "laguna": (
        "<tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
        "<arg_key>days</arg_key><arg_value>2</arg_value></tool_call>"
    ),
    "muse_spark": (
        '<atem:function_calls>\n<atem:invoke name="weather">\n<atem:parameter name="city">Oslo</atem:parameter>\n'
        '<atem:parameter name="days">2</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
    ),
}


def test_every_parser_of_mlx_lm_can_be_named() -> None:
    """models.yaml may choose each of them, and each has a transcript here."""
    modules = {module.name for module in pkgutil.iter_modules(mlx_lm.tool_parsers.__path__)}
    assert modules == TRANSCRIPTS.keys()
    assert modules <= set(TOOL_PARSERS)


@pytest.mark.parametrize("module", TRANSCRIPTS)
def test_the_call_of_each_family_is_read(module: str) -> None:
    """The call of every family gives the same event, fed one character at a time."""
    tool_parser = importlib.import_module(f"mlx_lm.tool_parsers.{module}")
    form = OutputFormat(
        tool_start=tool_parser.tool_call_start,
        tool_end=tool_parser.tool_call_end,
        parse_tool_call=tool_parser.parse_tool_call,
    )
    parser = OutputParser(form, TOOLS, lambda: "call_1")
    expected = Called(0, ToolCall("call_1", "weather", '{"city":"Oslo","days":2}'))
    assert events_from(parser, TRANSCRIPTS[module]) == [expected]
