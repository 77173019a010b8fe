"""Images that are not captioned: refused before any event, or replaced if the setting allows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import FilePart, Finished, ImagePart, Message, Role, VisionMode
from periscope.errors import ImageInvalid, ImageRejected
from periscope.serving.disabled_images import PLACEHOLDER
from periscope.serving.models import DisabledImages, ServedModel
from tests.serving.rooms import CIRCLE, SQUARE, Rooms, events_of, request, user, with_rooms


@pytest.mark.parametrize("model", ["blind", "blind-alias"])
def test_disabled_vision_refuses_before_any_event(tiny_text_model: Path, model: str) -> None:
    """The error names the part, and neither captioner nor text model is used."""

    async def use(rooms: Rooms) -> None:
        with pytest.raises(ImageRejected, match="blind") as caught:
            await events_of(rooms, request(user("what?", CIRCLE), model=model))
        assert caught.value.param == "messages[0].content[1]"
        assert not rooms.captioner.entered.is_set()
        assert rooms.pool.status("blind").state == "unloaded"

    with_rooms(tiny_text_model, use)


def test_a_placeholder_stands_for_old_images_and_tool_results_only() -> None:
    """Agents keep working without vision, but a new image is never silently dropped."""
    from periscope.serving.disabled_images import without_images

    model = ServedModel("agent", (), 0, None, VisionMode.DISABLED, disabled_images=DisabledImages.PLACEHOLDER)
    tool = Message(Role.TOOL, (ImagePart(CIRCLE, "messages[2].content[0]"),), tool_call_id="c")
    old, new = user(CIRCLE), user("go on")
    assert [message.text for message in without_images((old, new, tool), model)] == [PLACEHOLDER, "go on", PLACEHOLDER]
    with pytest.raises(ImageRejected):
        without_images((old, user(SQUARE)), model)


def test_a_broken_image_is_the_client_s_error_before_any_event(tiny_text_model: Path) -> None:
    """Nothing is sent or captioned before, so that the answer can have status 400."""

    async def use(rooms: Rooms) -> None:
        events = rooms.service.stream(request(user("data:image/png;base64,AAAA")))
        with pytest.raises(ImageInvalid):
            await anext(events)

    with_rooms(tiny_text_model, use)


def test_a_model_without_vision_reads_the_text_of_documents(tiny_text_model: Path) -> None:
    """That needs no captioner; a native model gets the text in the same way."""

    async def use(rooms: Rooms) -> None:
        part = FilePart("messages[0].content[0]", "a.txt", text="a few words")
        for model in ("blind", "native"):
            events = await events_of(
                rooms, replace(request(user("what?")), messages=(Message(Role.USER, (part,)),), model=model)
            )
            assert isinstance(events[-1], Finished)
        assert not rooms.captioner.entered.is_set()

    with_rooms(tiny_text_model, use)
