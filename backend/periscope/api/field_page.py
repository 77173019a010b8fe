"""The page that tells what becomes of each field: `python -m periscope.api.field_page > docs/fields.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from periscope.api.anthropic.fields import MESSAGES_FIELDS
from periscope.api.anthropic.schema import MessagesWire
from periscope.api.fields import FieldTable, Handling
from periscope.api.openai.embeddings import EmbeddingWire
from periscope.api.openai.fields import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS
from periscope.api.openai.schema import ChatCompletionWire, CompletionWire
from periscope.api.responses.fields import MCP_FIELDS, RESPONSES_FIELDS
from periscope.api.responses.mcp_tools import McpWire
from periscope.api.responses.schema import ResponsesWire
from periscope.api.validation import Wire


@dataclass(frozen=True, slots=True)
class FieldChapter:
    """One route's fields.

    Attributes:
        wire: the model of its body, which has every field that is used.
        place: before the fields in errors, if they are those of a part of the body.
    """

    route: str
    table: FieldTable
    wire: type[Wire]
    place: str = ""


#: The chapters of the page. A dialect adds its own here.
CHAPTERS: Final[Sequence[FieldChapter]] = (
    FieldChapter("POST /v1/chat/completions", CHAT_FIELDS, ChatCompletionWire),
    FieldChapter("POST /v1/completions", COMPLETION_FIELDS, CompletionWire),
    FieldChapter("POST /v1/embeddings", EMBEDDING_FIELDS, EmbeddingWire),
    FieldChapter("POST /v1/responses", RESPONSES_FIELDS, ResponsesWire),
    FieldChapter("POST /v1/responses, `tools` of type `mcp`", MCP_FIELDS, McpWire, "tools[0]."),
    FieldChapter("POST /v1/messages", MESSAGES_FIELDS, MessagesWire),
)

_HEAD: Final = """# Fields of requests

What becomes of each field, by the tables that decode requests (`fields.py` of each dialect). Fields that are not here
are unknown: they are accepted, and named in a line of the log. `python -m periscope.api.field_page` makes this page.
"""


def page() -> str:
    """Pure: the whole page, in Markdown."""
    return _HEAD + "".join(f"\n{line}" for chapter in CHAPTERS for line in _lines(chapter))


def _lines(chapter: FieldChapter) -> Iterator[str]:
    yield f"## {chapter.route}\n"
    for handling in Handling:
        rows = [(name, field) for name, field in chapter.table.items() if field.handling is handling]
        if rows:
            yield f"| {handling} | |"
            yield "|---|---|"
            yield from (f"| `{name}` | {field.why} |" for name, field in rows)
            yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
