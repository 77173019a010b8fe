"""Documents in the shapes of all dialects: the same core part, whether or not their content is in the request."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.content_parts import decode_content
from periscope.core import FilePart, ImagePart, Part, TextPart
from periscope.errors import InvalidRequest

PDF = "data:application/pdf;base64,JVBERi0x"
MP4 = "data:video/mp4;base64,AAAA"
PNG = "data:image/png;base64,AAAA"
AT = "content[0]"


def anthropic(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


BASE64 = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}


@pytest.mark.parametrize(
    ("part", "parts"),
    [
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}, (FilePart(AT, "a.pdf", url=PDF),)),
        ({"type": "input_file", "filename": "a.pdf", "file_data": PDF}, (FilePart(AT, "a.pdf", url=PDF),)),
        (
            {"type": "file", "file": {"file_data": "JVBERi0x"}},
            (FilePart(AT, url="data:application/octet-stream;base64,JVBERi0x"),),
        ),
        ({"type": "file", "file": {"file_data": PNG}}, (ImagePart(PNG, AT),)),
        ({"type": "image_url", "image_url": {"url": PDF}}, (FilePart(AT, url=PDF),)),
        ({"type": "image_url", "image_url": {"url": MP4}}, (FilePart(AT, url=MP4),)),
        ({"type": "video_url", "video_url": {"url": MP4}}, (FilePart(AT, url=MP4),)),
        ({"type": "video_url", "video_url": MP4}, (FilePart(AT, url=MP4),)),
        ({"type": "input_video", "input_video": {"data": "AAAA", "format": "mp4"}}, (FilePart(AT, url=MP4),)),
        ({"type": "input_video", "video_url": MP4}, (FilePart(AT, url=MP4),)),
        ({"type": "video", "video": MP4}, (FilePart(AT, url=MP4),)),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,JVBERi0x"},
            (FilePart(AT, url="data:image/png;base64,JVBERi0x"),),
        ),
        ({"type": "image", "source": BASE64}, (FilePart(AT, url=PDF),)),
        ({"type": "image", "data": "JVBERi0x", "mimeType": "application/pdf"}, (FilePart(AT, url=PDF),)),
        (
            anthropic(BASE64, title="a.pdf", context="It is mine."),
            (TextPart("It is mine."), FilePart(AT, "a.pdf", url=PDF)),
        ),
        (anthropic({"type": "text", "media_type": "text/plain", "data": "hi"}), (FilePart(AT, text="hi"),)),
        (anthropic({"type": "content", "content": "hi"}), (FilePart(AT, text="hi"),)),
        (
            anthropic(
                {
                    "type": "content",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image", "source": {"type": "url", "url": PNG}},
                        {"type": "text", "text": "b"},
                    ],
                }
            ),
            (FilePart(AT, text="a\nb"), ImagePart(PNG, f"{AT}.source.content[1]")),
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [anthropic(BASE64)]},
            (FilePart(f"{AT}.content[0]", url=PDF),),
        ),
    ],
)
def test_a_document_is_the_same_part_from_every_dialect(part: dict[str, Any], parts: tuple[Part, ...]) -> None:
    """Also a PDF in the place of a picture, a picture in the place of a file, and what a tool gives back."""
    assert decode_content([part], "content") == parts


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ({"type": "file", "file": {"file_id": "f"}}, "`content[0].file.file_id` names a stored file"),
        ({"type": "input_file", "file_url": "https://x/a.pdf"}, "`content[0].file_url` is not fetched"),
        ({"type": "input_file", "file_data": "https://x/a.pdf"}, "`content[0].file_data` is an address"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "`content[0].file.file_data` is missing"),
        ({"type": "video_url", "video_url": {"url": "https://x/a.mp4"}}, "`content[0].video_url.url` is an address"),
        (anthropic({"type": "url", "url": "https://x/a.pdf"}), "`content[0].source.url` is not fetched"),
        (anthropic({"type": "file", "file_id": "f"}), "`content[0].source.file_id` names a stored file"),
    ],
)
def test_a_document_that_is_not_in_the_request_says_so(part: dict[str, Any], missing: str) -> None:
    """The message is kept for where it is known whether this is an error: by name, with the way on."""
    (decoded,) = decode_content([part], "content")
    assert isinstance(decoded, FilePart)
    assert decoded.missing is not None
    assert decoded.missing.startswith(missing)
    assert "Send the bytes" in decoded.missing


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "video_url"}, "content[0].video_url"),
        ({"type": "video_url", "video_url": {"url": 1}}, "content[0].video_url.url"),
        ({"type": "input_video", "input_video": {"data": ""}}, "content[0].input_video.data"),
        ({"type": "video", "video": ["a.jpg", "b.jpg"]}, "content[0].video"),
    ],
)
def test_a_video_of_the_wrong_type_names_its_field(part: dict[str, Any], field: str) -> None:
    """A list of frames, too, which some templates take: each is to be sent as an image."""
    with pytest.raises(InvalidRequest) as refused:
        decode_content([part], "content")
    assert refused.value.param == field
