"""Images in the shapes of all dialects: the same core part, or an error that names the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from periscope.api.content import image_block, image_url_part
from periscope.core import FilePart, ImagePart
from periscope.errors import InvalidRequest

PNG = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("decode", "part"),
    [
        (image_url_part, {"image_url": {"url": PNG, "detail": "high"}}),
        (image_url_part, {"image_url": PNG}),
        (image_block, {"source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
        (image_block, {"source": {"type": "url", "url": PNG}}),
        (image_block, {"data": "AAAA", "mimeType": "image/png"}),
        (image_block, {"url": PNG}),
        (image_block, {"image": PNG}),
    ],
    ids=["OpenAI chat", "Responses", "Anthropic base64", "Anthropic URL", "MCP", "Transformers URL", "Transformers"],
)
def test_an_image_is_the_same_part_from_every_dialect(
    decode: Callable[[dict[str, Any], str], ImagePart], part: dict[str, Any]
) -> None:
    """Its address holds the image, and its param is the place it was sent at."""
    assert decode(part, "input[0].content[2]") == ImagePart(PNG, "input[0].content[2]")


@pytest.mark.parametrize(
    ("decode", "part", "field"),
    [
        (image_url_part, {"file_id": "f"}, "at.file_id"),
        (image_block, {"source": {"type": "file", "file_id": "f"}}, "at.source.file_id"),
    ],
    ids=["Responses", "Anthropic"],
)
def test_a_stored_image_is_a_file_that_is_missing(
    decode: Callable[[dict[str, Any], str], ImagePart | FilePart], part: dict[str, Any], field: str
) -> None:
    """In an earlier turn it must not end the conversation; otherwise the error names the field and the fix."""
    found = decode(part, "at")
    assert isinstance(found, FilePart)
    assert found.missing is not None
    assert found.missing.startswith(f"`{field}` names a stored image")


@pytest.mark.parametrize(
    ("decode", "part", "param"),
    [
        (image_url_part, {}, "at.image_url"),
        (image_url_part, {"image_url": {"url": 3}}, "at.image_url.url"),
        (image_block, {}, "at.source"),
        (image_block, {"source": {"type": "blob", "file_id": "f"}}, "at.source.type"),
        (image_block, {"source": {"type": "url", "url": ""}}, "at.source.url"),
        (image_block, {"source": {"type": "base64", "media_type": "image/png"}}, "at.source.data"),
        (image_block, {"source": {"type": "base64", "media_type": "image/png,x", "data": "A"}}, "at.source.media_type"),
        (image_block, {"data": "AAAA"}, "at.mimeType"),
        (image_block, {"image": {"bytes": "AAAA"}}, "at.image"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(
    decode: Callable[[dict[str, Any], str], ImagePart], part: dict[str, Any], param: str
) -> None:
    """The client reads which field it is, and what it should be."""
    with pytest.raises(InvalidRequest, match=f"`{param}` must be") as caught:
        decode(part, "at")
    assert caught.value.param == param
