"""What becomes of each field: the tables say the truth, and all that clients' SDKs send is in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from anthropic.types import message_create_params as messages_params
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses import response_create_params as responses_params
from openai.types.responses import tool_param

from periscope.api.anthropic.decode import decode as decode_messages
from periscope.api.errors import UnsupportedParameter
from periscope.api.field_page import CHAPTERS, FieldChapter, page
from periscope.api.fields import Field, Handling
from periscope.api.openai.chat import decode as decode_chat
from periscope.api.openai.completions import decode as decode_completion
from periscope.api.openai.embeddings import decode_embedding
from periscope.api.responses.decode import Decoded
from periscope.api.responses.decode import decode as decode_asked
from periscope.api.responses.mcp_tools import decode_servers, unused_of_servers
from periscope.api.responses.schema import ToolWire
from periscope.api.responses.sealed import ReasoningSeal
from tests.api.driving import HELLO, FakeBackend, client_of, in_loop

CHAT, COMPLETION, MESSAGES = "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/messages"
RESPONSES = "POST /v1/responses"
MCP = "POST /v1/responses, `tools` of type `mcp`"
EMBEDDINGS = "POST /v1/embeddings"
PLACES = {chapter.route: chapter.place for chapter in CHAPTERS}
ASKED = [{"role": "user", "content": "Hi"}]


def decode_response(body: Any, request_id: str) -> Decoded:
    return decode_asked(body, request_id).request(ReasoningSeal("secret"))


@dataclass
class Unused:
    unused: tuple[str, ...]


def decode_mcp_tool(body: Any, _: str) -> Unused:
    wires = [ToolWire.model_validate(body)]
    decode_servers(wires, ["docs"])
    return Unused(tuple(unused_of_servers(wires)))


DECODERS: dict[str, tuple[Callable[[Any, str], Any], dict[str, Any]]] = {
    CHAT: (decode_chat, {"messages": ASKED}),
    COMPLETION: (decode_completion, {"prompt": "Hi"}),
    EMBEDDINGS: (decode_embedding, {"input": "Hi"}),
    RESPONSES: (decode_response, {"input": "Hi"}),
    MCP: (decode_mcp_tool, {"type": "mcp", "server_label": "docs"}),
    MESSAGES: (decode_messages, {"messages": ASKED, "max_tokens": 9}),
}
SDK_TYPES: dict[str, Any] = {
    CHAT: chat_params.CompletionCreateParamsStreaming,
    COMPLETION: completion_params.CompletionCreateParamsStreaming,
    EMBEDDINGS: EmbeddingCreateParams,
    RESPONSES: responses_params.ResponseCreateParamsStreaming,
    MCP: tool_param.Mcp,
    MESSAGES: messages_params.MessageCreateParamsStreaming,
}
ROWS = [
    pytest.param(chapter.route, name, field, id=f"{chapter.route} {name}")
    for chapter in CHAPTERS
    for name, field in chapter.table.items()
    if field.handling is not Handling.USED
]
#: A value that is of no field's neutral ones.
ANY_VALUE: Any = {"some": "value"}


def unused(route: str, **fields: Any) -> Any:
    """What a request of this route with these fields asks for in vain."""
    decode, body = DECODERS[route]
    return decode(body | fields, "x").unused


def nested(path: str, value: Any) -> dict[str, Any]:
    """The fields of a body with this value at this path."""
    parent, _, name = path.rpartition(".")
    return {parent: {name: value}, "stream": True} if parent else {name: value}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.route)
def test_every_field_that_is_read_is_in_the_table_as_used_and_no_other(chapter: FieldChapter) -> None:
    """A field that is added to a wire model, or dropped from it, cannot be forgotten in the table."""
    read = {field.alias or name for name, field in chapter.wire.model_fields.items()}
    assert {name for name, field in chapter.table.items() if field.handling is Handling.USED} == read


@pytest.mark.parametrize("route", SDK_TYPES)
def test_every_field_that_the_sdk_can_send_is_known(route: str) -> None:
    """A new version of the SDK with new fields says so here."""
    (chapter,) = (each for each in CHAPTERS if each.route == route)
    assert set(get_type_hints(SDK_TYPES[route])) <= set(chapter.table)


@pytest.mark.parametrize(("route", "name", "field"), ROWS)
def test_a_field_without_effect_is_dealt_with_as_its_row_says(route: str, name: str, field: Field) -> None:
    """Refused by name with the way out, named for the log, or taken without a word; never more than its row says."""
    for value in (None, *field.neutral):
        assert unused(route, **nested(name, value)) == ()
    if field.handling is Handling.REFUSED:
        with pytest.raises(UnsupportedParameter) as caught:
            unused(route, **nested(name, ANY_VALUE))
        assert caught.value.param == PLACES[route] + name
        assert caught.value.message == f"`{PLACES[route]}{name}` is not supported; {field.fix}."
    else:
        noted = (PLACES[route] + name,) if field.handling is Handling.NOTED else ()
        assert unused(route, **nested(name, ANY_VALUE)) == noted


@pytest.mark.parametrize("route", DECODERS)
def test_an_unknown_field_is_accepted_and_named(route: str) -> None:
    """A newer client works with this server; whoever reads the log sees what it asked for in vain."""
    assert unused(route, brand_new=True, absent=None) == (f"{PLACES[route]}brand_new",)


def test_an_unknown_option_of_an_option_is_named_with_its_path() -> None:
    """OpenRouter's `exclude`, say, which would hide the reasoning there."""
    assert unused(CHAT, reasoning={"effort": "low", "exclude": True}) == ("reasoning.exclude",)


def test_a_field_of_another_route_is_named_whatever_it_holds() -> None:
    """Chats have `thinking` and `reasoning`; completions do not, and nobody checks their type there."""
    assert unused(COMPLETION, thinking=True, reasoning="low") == ("thinking", "reasoning")


@in_loop
async def test_what_has_no_effect_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """However many there are, and under the request's id."""
    fields = {f"x{i}": 1 for i in range(50)}
    with caplog.at_level(logging.INFO, "periscope"):
        async with client_of(FakeBackend()) as client:
            reply = await client.post("/v1/chat/completions", json=HELLO | {"verbosity": "low", "user": "u"} | fields)
    told = [record for record in caplog.records if "not used" in record.getMessage()]
    assert len(told) == 1
    assert told[0].getMessage().startswith("accepted and not used: verbosity, x0, x1, ")
    assert told[0].getMessage().endswith(", x30 and 19 more")
    assert told[0].__dict__["request_id"] == reply.headers["x-request-id"]


@in_loop
async def test_a_refused_field_is_named_as_it_was_sent() -> None:
    """Also one that has another name in this dialect: `input` is not what has to go."""
    async with client_of(FakeBackend()) as client:
        reply = await client.post("/v1/responses", json={"input": "Hi", "messages": ASKED})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")


def test_the_page_of_fields_is_made_from_the_tables() -> None:
    """`python -m periscope.api.field_page > docs/fields.md` makes it anew."""
    kept = Path(__file__).parents[2] / "docs" / "fields.md"
    assert kept.read_text(encoding="utf-8") == page()
