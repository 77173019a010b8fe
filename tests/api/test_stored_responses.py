"""Responses that are kept, as OpenAI's SDK asks for them: to go on from, to list, and to be refused."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from periscope.core import (
    ImagePart,
    Role,
    TextDelta,
)
from periscope.errors import ContextLengthExceeded, GenerationFailed
from tests.api.driving import FINISHED, FakeBackend, in_loop
from tests.api.responses_sdk import HELLO, SCRIPT, sdk_over


@in_loop
async def test_the_next_request_goes_on_from_a_response_by_its_id() -> None:
    """The model reads what it read and wrote before, pictures included, without anything sent again."""
    picture = "data:image/png;base64,AAAA"
    backend = FakeBackend(TextDelta("A circle."), FINISHED)
    shown: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": picture, "detail": "auto"}]}]
    async with sdk_over(backend) as sdk:
        first = await sdk.responses.create(model="small", input=shown, instructions="Be brief.")
        second = await sdk.responses.create(model="small", input="And now?", previous_response_id=first.id)
        await sdk.responses.create(model="small", input="Well?", previous_response_id=second.id)
        listed = [item async for item in sdk.responses.input_items.list(second.id, order="asc", limit=1)]
        assert (await sdk.responses.retrieve(second.id)).output_text == "A circle."
        assert second.previous_response_id == first.id
        await sdk.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match=first.id) as gone:
            await sdk.responses.create(model="small", input="Hm", previous_response_id=second.id)
    assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")
    roles = [message.role for message in backend.requests[-1].messages]
    assert roles == [Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT, Role.USER]  # instructions hold for one turn
    assert backend.requests[-1].messages[0].parts[0] == ImagePart(picture, "previous_response_id.items[0].content[0]")
    assert [item.type for item in listed] == ["message"] * 3
    assert [getattr(item, "role", None) for item in listed] == ["user", "assistant", "user"]


@in_loop
async def test_items_that_were_sent_twice_are_listed_once() -> None:
    """Pages follow ids: a client that sends the same item again would get the same page for ever."""
    said: Any = [{"type": "message", "id": "msg_1", "role": "user", "content": "Hello"}]
    async with sdk_over(FakeBackend(TextDelta("Hi."), FINISHED)) as sdk:
        first = await sdk.responses.create(model="small", input=said)
        again = [*said, {"role": "user", "content": "And?"}]
        second = await sdk.responses.create(model="small", input=again, previous_response_id=first.id)
        listed = [item.id async for item in sdk.responses.input_items.list(second.id, order="asc", limit=1)]
    assert (len(listed), listed[0]) == (3, "msg_1")


@in_loop
async def test_items_of_stored_responses_may_be_named() -> None:
    """The AI SDK names what it got, instead of sending it; a name that is not there is told with its place."""
    backend = FakeBackend(*SCRIPT)
    async with sdk_over(backend) as sdk:
        first = await sdk.responses.create(**HELLO)
        named: Any = [{"type": "item_reference", "id": item.id} for item in first.output[:2]]
        await sdk.responses.create(model="small", input=[*named, {"role": "user", "content": "Go on"}])
        with pytest.raises(openai.BadRequestError, match="not stored here") as missing:
            await sdk.responses.create(model="small", input=[{"type": "item_reference", "id": "msg_0"}])
    assert missing.value.param == "input[0].id"
    answer = backend.requests[1].messages[0]
    assert (answer.reasoning, answer.text) == ("Let me see.", "I will look.")


@in_loop
async def test_what_is_not_to_be_stored_is_not() -> None:
    """`store: false`, an error, and an answer whose client has left."""
    async with sdk_over(FakeBackend()) as sdk:
        unstored = await sdk.responses.create(**HELLO, store=False)
        assert (unstored.model_extra or {})["store"] is False
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(unstored.id)
    async with sdk_over(FakeBackend(TextDelta("Hi"), GenerationFailed("It broke."))) as sdk:
        stream = await sdk.responses.create(**HELLO, stream=True)
        failed = await anext(event async for event in stream if event.type == "response.failed")
        with pytest.raises(openai.APIError, match="It broke"):
            await anext(aiter(stream))
        assert (failed.type, failed.response.status) == ("response.failed", "failed")
        assert failed.response.error.code == "generation_failed"
        assert failed.response.output[0].status == "incomplete"
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(failed.response.id)


@in_loop
async def test_the_oldest_turns_are_dropped_where_the_client_allows_it() -> None:
    """`truncation: auto`: turns go as a whole until the prompt fits. One that never fits is an error in the end."""
    turns: Any = [{"role": "system", "content": "Be brief."}]
    for number in range(10):
        call = {"type": "function_call", "call_id": f"c{number}", "name": "weather", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": f"c{number}", "output": "Sunny."}
        turns += [{"role": "user", "content": f"Question {number}"}, call, result]

    class Narrow(FakeBackend):
        async def stream(self, request: Any) -> Any:
            self.requests.append(request)
            if len(request.messages) > 10:
                raise ContextLengthExceeded(len(request.messages), 10)
            yield TextDelta("Hi")
            yield FINISHED

    backend = Narrow()
    async with sdk_over(backend) as sdk:
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(model="small", input=turns)
        response = await sdk.responses.create(model="small", input=turns, truncation="auto")
        assert response.output_text == "Hi"
        kept = backend.requests[-1].messages
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(model="small", input=[*turns, *turns[3:4] * 20], truncation="auto")
    assert [message.role for message in kept[:4]] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL]
    assert (len(kept), kept[-3].text) == (4, "Question 9")


@in_loop
async def test_stored_responses_say_what_they_cannot_do() -> None:
    """Each with the way out."""
    async with sdk_over(FakeBackend()) as sdk:
        response = await sdk.responses.create(**HELLO)
        with pytest.raises(openai.BadRequestError, match="/api/requests/"):
            await sdk.responses.cancel(response.id)
        with pytest.raises(openai.BadRequestError, match="events of a response are not kept"):
            await sdk.responses.retrieve(response.id, stream=True)
        with pytest.raises(openai.BadRequestError, match="no item of this list"):
            await sdk.responses.input_items.list(response.id, after="msg_0")
        with pytest.raises(openai.BadRequestError, match="from 1 to 100"):
            await sdk.responses.input_items.list(response.id, limit=0)
        counted = await sdk.responses.input_tokens.count(**HELLO)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 11)
