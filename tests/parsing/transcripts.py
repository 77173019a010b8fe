"""Outputs of models of each tool-call family, with the events that a parser must make of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from periscope.core import (
    OutputFormat,
    ReasoningDelta,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCallStyle,
    ToolChoice,
    ToolChoiceMode,
)
from tests.parsing.events import called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.parsing.events import Event


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "at": {"type": "object"}},
}
TOOLS = (Tool("weather", "The weather of the next days.", SCHEMA), Tool("time"))
STRICT = tuple(replace(tool, is_strict=True) for tool in TOOLS)
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)
ANSWER = ResponseFormat({"type": "object"})


def marked(module: str, think: tuple[str, str] | None, style: ToolCallStyle = ToolCallStyle.MARKED) -> OutputFormat:
    """The output format of a family that mlx-lm has a parser for."""
    parser = importlib.import_module(f"mlx_lm.tool_parsers.{module}")
    start, end = think or (None, None)
    return OutputFormat(start, end, parser.tool_call_start, parser.tool_call_end, parser.parse_tool_call, style)


THINK = ("<think>", "</think>")
HERMES = marked("json_tools", THINK, ToolCallStyle.HERMES)
LLAMA = OutputFormat(tool_call_style=ToolCallStyle.LLAMA)
LLAMA_THINKING = replace(LLAMA, think_start="<think>", think_end="</think>")
MISTRAL = marked("mistral", ("[THINK]", "[/THINK]"), ToolCallStyle.MISTRAL)
OLD_MISTRAL = replace(MISTRAL, tool_call_style=ToolCallStyle.MARKED)
CODER = marked("qwen3_coder", THINK)
HARMONY = OutputFormat("<|channel|>analysis<|message|>", "<|end|>", tool_call_style=ToolCallStyle.HARMONY)
GEMMA = marked("gemma4", ("<|channel>thought", "<channel|>"))
GLM = marked("glm47", THINK)


@dataclass(frozen=True)
class Transcript:
    """An output of a model of a family, and the events that a client gets."""

    form: OutputFormat
    text: str
    events: Sequence[Event]
    choice: ToolChoice = ToolChoice()
    tools: tuple[Tool, ...] = TOOLS
    answer: ResponseFormat | None = None
    is_cut_off: bool = False


WEATHER = called(0, "weather", '{"city":"Łódź 🌧","days":2}')
NESTED = called(0, "weather", '{"at":{"x":[1,{"y":"}"}],"z":null}}')
PARALLEL = [called(0, "weather", '{"city": "Oslo"}'), called(1, "time", "{}")]
#: The same as a model writes it in JSON.
WRITTEN = called(0, "weather", '{"city": "Łódź 🌧", "days": 2}')
WRITTEN_NESTED = called(0, "weather", '{"at": {"x": [1, {"y": "}"}], "z": null}}')

TRANSCRIPTS = {
    "hermes": Transcript(
        HERMES,
        '<think>\nRain?\n</think>\n\nI look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Łódź 🌧", '
        '"days": 2}}\n</tool_call>\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        [ReasoningDelta("Rain?\n"), TextDelta("I look.\n"), WRITTEN, called(1, "time", "{}")],
    ),
    "hermes nested, markers in a string": Transcript(
        HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "</tool_call>\\"<tool_call>", "at": {"x": [{}]}}}\n'
        "</tool_call>",
        [called(0, "weather", '{"city": "</tool_call>\\"<tool_call>", "at": {"x": [{}]}}')],
    ),
    "hermes required": Transcript(
        HERMES,
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name": "wea',
        [called(0, "time", "{}")],
        REQUIRED,
        is_cut_off=True,
    ),
    "a number beyond floats": Transcript(
        HERMES,
        '<tool_call>{"name": "time", "arguments": {"a": [-1e999]}}</tool_call>',
        [called(0, "time", '{"a": [-1e999]}')],
    ),
    "llama": Transcript(LLAMA, '{"name": "weather", "parameters": {"city": "Łódź 🌧", "days": 2}}<|eom_id|>', [WRITTEN]),
    "llama nested": Transcript(
        LLAMA,
        '\n{"type": "function", "name": "weather", "parameters": {"at": {"x": [1, {"y": "}"}], "z": null}}}',
        [WRITTEN_NESTED],
    ),
    "llama tag": Transcript(
        LLAMA,
        'I look.<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "time", "parameters": {}}',
        [TextDelta("I look."), *PARALLEL],
    ),
    "llama list": Transcript(
        LLAMA,
        '[{"name": "weather", "parameters": {"city": "Oslo"}},\n {"name": "time", "arguments": {}}]\n',
        PARALLEL,
    ),
    "llama markers in a string": Transcript(
        LLAMA,
        '{"name": "weather", "parameters": {"city": "<|python_tag|>{<|eot_id|>"}}',
        [called(0, "weather", '{"city": "<|python_tag|>{<|eot_id|>"}')],
    ),
    "llama truncated": Transcript(
        LLAMA, '{"name": "weather", "parameters": {"ci', [called(0, "weather", '{"ci')], is_cut_off=True
    ),
    "llama talks, then quotes a call": Transcript(
        LLAMA,
        'Like {"name": "time", "parameters": {}}<|eot_id|>',
        [TextDelta('Like {"name": "time", "parameters": {}}')],
    ),
    "llama thinks": Transcript(
        LLAMA_THINKING,
        '<think>{"name": "time", "parameters": {}}?</think>\n\n{"name": "time", "parameters": {}}',
        [ReasoningDelta('{"name": "time", "parameters": {}}?'), called(0, "time", "{}")],
    ),
    "mistral's marker before what is no call": Transcript(MISTRAL, '[TOOL_CALLS]\n{"a": 1}', [TextDelta('{"a": 1}')]),
    "mistral": Transcript(
        MISTRAL,
        '[THINK]Rain?[/THINK]I look.[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]time[ARGS]{}',
        [ReasoningDelta("Rain?"), TextDelta("I look."), *PARALLEL],
    ),
    "mistral list": Transcript(
        MISTRAL,
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"at": {"x": [1, {"y": "}"}], "z": null}}}]',
        [WRITTEN_NESTED],
    ),
    "mistral truncated": Transcript(
        MISTRAL, '[TOOL_CALLS]weather[ARGS]{"city', [called(0, "weather", '{"city')], is_cut_off=True
    ),
    "qwen3 coder": Transcript(
        CODER,
        "<think>Rain?</think>\n<tool_call>\n<function=weather>\n<parameter=city>\nŁódź 🌧\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=time>\n</function>\n"
        "</tool_call>",
        [ReasoningDelta("Rain?"), WEATHER, called(1, "time", "{}")],
    ),
    "qwen3 coder truncated": Transcript(
        CODER,
        "<tool_call>\n<function=weather>\n<parameter=ci",
        [],
        is_cut_off=True,
    ),
    "harmony": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Rain?<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
        '{"city":"Łódź 🌧","days":2}<|call|>',
        [ReasoningDelta("Rain?"), TextDelta("I look."), WEATHER],
    ),
    "harmony recipient first, parallel": Transcript(
        HARMONY,
        ' to=functions.weather<|channel|>commentary json<|message|>{"city":"Oslo"}<|end|>'
        "<|start|>assistant to=functions.time<|channel|>commentary json<|message|>{}",
        [called(0, "weather", '{"city":"Oslo"}'), called(1, "time", "{}")],
    ),
    "harmony nested, markers in a string": Transcript(
        HARMONY,
        "<|channel|>commentary to=functions.weather<|message|>"
        '{"at":{"x":[1]},"city":"<|call|><|start|>\\"<|channel|>"}',
        [called(0, "weather", '{"at":{"x":[1]},"city":"<|call|><|start|>\\"<|channel|>"}')],
    ),
    "harmony truncated call": Transcript(
        HARMONY,
        '<|channel|>commentary to=functions.weather<|message|>{"city":"Os',
        [called(0, "weather", '{"city":"Os')],
        is_cut_off=True,
    ),
    "gemma": Transcript(
        GEMMA,
        '<|channel>thought\nRain?<channel|>I look.<|tool_call>call:weather{city:<|"|>Łódź 🌧<|"|>,days:2}<tool_call|>'
        "<|tool_call>call:time{}<tool_call|>",
        [ReasoningDelta("Rain?"), TextDelta("I look."), WEATHER, called(1, "time", "{}")],
    ),
    "gemma nested": Transcript(
        GEMMA,
        '<|tool_call>call:weather{at:{x:[1,{y:<|"|>}<|"|>}],z:null}}<tool_call|>',
        [NESTED],
    ),
    "glm": Transcript(
        GLM,
        "<think>Rain?</think>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Łódź 🌧</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>time\n</tool_call>",
        [ReasoningDelta("Rain?"), WEATHER, called(1, "time", "{}")],
    ),
    "glm truncated": Transcript(GLM, "<tool_call>weather\n<arg_key>ci", [], is_cut_off=True),
    "forced in another syntax": Transcript(
        CODER,
        '<think>Both.</think>\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        [ReasoningDelta("Both."), *PARALLEL],
        REQUIRED,
    ),
    "forced without an end marker": Transcript(
        OLD_MISTRAL,
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "time", "arguments": {}}]',
        PARALLEL,
        REQUIRED,
    ),
    "strict, markers in a string": Transcript(
        CODER,
        'Hm.\n<tool_call>\n{"name": "weather", "arguments": {"city": "</tool_call><think>"}}\n</tool_call>',
        [TextDelta("Hm.\n"), called(0, "weather", '{"city": "</tool_call><think>"}')],
        tools=STRICT,
    ),
    "strict llama answers in json": Transcript(
        LLAMA_THINKING,
        '<think>Hm.</think>\n\n[{"name": "weather", "parameters": {"city": "Oslo"}}]',
        [ReasoningDelta("Hm."), TextDelta('[{"name": "weather", "parameters": {"city": "Oslo"}}]')],
        tools=STRICT,
    ),
    "strict llama": Transcript(
        LLAMA_THINKING,
        '{"name": "weather", "parameters": {"city": "<think>Oslo</think>"}}; {"name": "time", "parameters": {}}',
        [called(0, "weather", '{"city": "<think>Oslo</think>"}'), called(1, "time", "{}")],
        tools=STRICT,
    ),
    "json beside tools, markers in a string": Transcript(
        HERMES,
        '<think>Hm.</think>\n\n{"a": "<think><tool_call>{", ":1,": "</tool_call>"}',
        [ReasoningDelta("Hm."), TextDelta('{"a": "<think><tool_call>{", ":1,": "</tool_call>"}')],
        answer=ANSWER,
    ),
    "json beside tools, calls after all": Transcript(
        GEMMA,
        '<|tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n<tool_call|>\n'
        '<|tool_call>\n{"name": "time", "arguments": {}}\n<tool_call|>',
        PARALLEL,
        answer=ANSWER,
    ),
    "json beside harmony's tools, markers in a string": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
        '{"a": "<|end|><|channel|>x<|message|>"}',
        [ReasoningDelta("Hm."), TextDelta('{"a": "<|end|><|channel|>x<|message|>"}')],
        answer=ANSWER,
    ),
    "json beside llama's tools": Transcript(
        LLAMA,
        '{"name": "weather", "days": 3, "parameters": {}, "a": "<|eot_id|><|python_tag|>"}',
        [TextDelta('{"name": "weather", "days": 3, "parameters": {}, "a": "<|eot_id|><|python_tag|>"}')],
        answer=ANSWER,
    ),
    "forced truncated": Transcript(
        OutputFormat(),
        '[{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "time", "argu',
        [PARALLEL[0]],
        REQUIRED,
        is_cut_off=True,
    ),
    "forced in harmony's channels": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>One.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}',
        [ReasoningDelta("One."), called(0, "weather", '{"city": "Oslo"}')],
        ToolChoice(ToolChoiceMode.REQUIRED, name="weather"),
    ),
    "forced, markers in a string": Transcript(
        replace(OutputFormat(), think_start="<think>", think_end="</think>"),
        '[{"name": "weather", "arguments": {"city": "]},{\\"<think>"}}]',
        [called(0, "weather", '{"city": "]},{\\"<think>"}')],
        REQUIRED,
    ),
    "no format at all, forced": Transcript(
        OutputFormat(), '[{"name": "time", "arguments": {}}]', [called(0, "time", "{}")], REQUIRED
    ),
}
