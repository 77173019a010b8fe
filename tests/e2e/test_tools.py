"""OpenAI's tools through the real server and the official SDK: those that are allowed, custom ones, and others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tokenizers import Tokenizer

from periscope.demo import EMBEDDED_MODELS
from tests.e2e.conftest import RunningServer

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": told, "parameters": CITY}}
    for name, told in (("get_weather", "The weather in a city."), ("get_time", "The time in a city."))
]
CODE: Any = {
    "type": "custom",
    "custom": {
        "name": "code",
        "description": "Enters a code.",
        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": '[A-F]{3}"[0-9]{2}\\n'}},
    },
}
DRAW: Any = {
    "type": "custom",
    "custom": {
        "name": "draw",
        "description": "Draws.",
        "format": {
            "type": "grammar",
            "grammar": {
                "syntax": "lark",
                "definition": 'start: line line? "end"\nline: SHAPE "\\n"\nSHAPE: "dot" | "bar"',
            },
        },
    },
}


@pytest.fixture
def sdk(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        yield client


def allowing(mode: str, name: str) -> Any:
    tools = [{"type": "function", "function": {"name": name}}]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def answer(sdk: openai.OpenAI, **fields: Any) -> Any:
    return sdk.chat.completions.create(model="demo", messages=ASKED, temperature=0, **{"max_tokens": 100} | fields)


def test_only_allowed_tools_are_called_and_the_prompt_stays(sdk: openai.OpenAI) -> None:
    """The model would call the weather; it cannot, and all of the prompt that was computed before is used again."""
    (call,) = answer(sdk, tools=TOOLS).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    free = answer(sdk, tools=TOOLS, tool_choice=allowing("auto", "get_time"))
    assert {call.function.name for call in free.choices[0].message.tool_calls or ()} <= {"get_time"}
    assert free.usage.prompt_tokens_details.cached_tokens == free.usage.prompt_tokens - 1
    forced = answer(sdk, tools=TOOLS, tool_choice=allowing("required", "get_time"))
    assert {call.function.name for call in forced.choices[0].message.tool_calls} == {"get_time"}
    assert forced.usage.prompt_tokens_details.cached_tokens == forced.usage.prompt_tokens - 1


@pytest.mark.parametrize(
    ("tool", "fits"), [(CODE, '[A-F]{3}"[0-9]{2}\n'), (DRAW, "((dot|bar)\n){1,2}end")], ids=["regex", "lark"]
)
def test_a_custom_tool_that_must_be_called_gets_a_text_of_its_format(sdk: openai.OpenAI, tool: Any, fits: str) -> None:
    """The same streamed and whole; and the conversation goes on with the call and its result."""
    name = tool["custom"]["name"]
    asked = {
        "tools": [*TOOLS, tool],
        "tool_choice": {"type": "custom", "custom": {"name": name}},
        "parallel_tool_calls": False,
        "stop": ["\n"],
    }
    (choice,) = answer(sdk, **asked).choices
    (call,) = choice.message.tool_calls
    assert (call.type, call.custom.name, choice.finish_reason) == ("custom", name, "tool_calls")
    assert re.fullmatch(fits, call.custom.input)
    deltas = [chunk.choices[0].delta for chunk in answer(sdk, **asked, stream=True)]
    pieces = [piece.model_extra["custom"] for delta in deltas for piece in delta.tool_calls or ()]
    assert "".join(piece["input"] for piece in pieces) == call.custom.input
    result = {"role": "tool", "tool_call_id": call.id, "content": "Done."}
    messages: list[Any] = [*ASKED, choice.message, result]
    more = sdk.chat.completions.create(model="demo", messages=messages, tools=[*TOOLS, tool], max_tokens=20)
    assert more.usage is not None
    assert more.usage.prompt_tokens_details is not None
    assert (more.usage.prompt_tokens_details.cached_tokens or 0) > 100


def test_tools_that_the_server_would_have_to_run_do_not_end_a_turn(sdk: openai.OpenAI) -> None:
    """The call of the client's own tool comes as if they were not there; the answer names what was left out."""
    hosted: Any = [{"type": "web_search"}, {"type": "mcp", "server_label": "x", "server_url": "http://localhost:1"}]
    reply = answer(sdk, tools=[hosted[0], *TOOLS, hosted[1]])
    assert [call.function.name for call in reply.choices[0].message.tool_calls] == ["get_weather"]
    assert reply.model_extra["periscope"] == {"left_out": ["tools[0] (web_search)", "tools[3] (mcp)"]}
    with pytest.raises(openai.BadRequestError) as alone:
        answer(sdk, tools=hosted)
    assert alone.value.param == "tools[0].type"


def test_a_format_that_cannot_be_enforced_is_refused(sdk: openai.OpenAI) -> None:
    """Before anything is generated, with the tool's name or the place of the grammar."""
    broken = json.loads(json.dumps(CODE).replace("[A-F]", "([A-F]"))
    with pytest.raises(openai.BadRequestError, match=r"Tool `code`.*no regular expression.*`format` out"):
        answer(sdk, tools=[broken])
    broken = json.loads(json.dumps(DRAW).replace("SHAPE: ", "SHAPES: "))
    with pytest.raises(openai.BadRequestError) as lark:
        answer(sdk, tools=[broken], tool_choice="required")
    assert lark.value.param == "tools[0].custom.format.grammar.definition"


def test_an_answer_beside_tools_is_a_call_or_one_of_the_choices(sdk: openai.OpenAI) -> None:
    """With `guided_choice`, say: the model calls if it would rather, and else says nothing but these."""
    extra = {"guided_choice": ["yes", "no"]}
    (call,) = answer(sdk, tools=TOOLS, extra_body=extra).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    tokens = Tokenizer.from_file(str(EMBEDDED_MODELS["embedded:text"] / "tokenizer.json"))
    no_calls = {str(tokens.token_to_id("<tool_call>")): -100}
    (choice,) = answer(sdk, tools=TOOLS, extra_body=extra, logit_bias=no_calls).choices
    assert (choice.message.content in ("yes", "no"), choice.finish_reason) == (True, "stop")


def test_older_clients_send_functions(sdk: openai.OpenAI) -> None:
    """The model's call comes as `function_call`, and its result in a message of role `function` is answered."""
    functions = [tool["function"] for tool in TOOLS]
    (choice,) = answer(sdk, functions=functions, function_call={"name": "get_time"}).choices
    assert (choice.finish_reason, choice.message.function_call.name) == ("function_call", "get_time")
    assert set(json.loads(choice.message.function_call.arguments)) == {"city"}
    messages: list[Any] = [*ASKED, choice.message, {"role": "function", "name": "get_time", "content": "It is noon."}]
    more = sdk.chat.completions.create(model="demo", messages=messages, functions=functions, max_tokens=20)
    assert more.choices[0].message.content
