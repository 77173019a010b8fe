"""How documents are read, and how large they may be. Plain data, as models.yaml says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DocumentMode(StrEnum):
    """What is taken of a PDF's pages.

    AUTO takes the text, and shows a page as a picture as well where it has no text, holds figures or form fields. TEXT
    takes the text only, PAGES pictures of the pages only, BOTH takes both of every page.
    """

    AUTO = "auto"
    TEXT = "text"
    PAGES = "pages"
    BOTH = "both"


class HTMLMode(StrEnum):
    """How a web page is read: TEXT takes what its reader sees, as Markdown, SOURCE the file as it is."""

    TEXT = "text"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class DocumentSettings:
    """How the documents of one text model's requests are read. Error messages name limits as models.yaml does.

    Attributes:
        max_bytes: size of one file (`max_document_bytes`).
        max_pages: of one PDF (`max_document_pages`).
        max_page_px: the longest side of a page's picture (`max_page_px`).
        max_chars: text taken of one document; the rest is cut off, which its last block says (`document_max_chars`).
        max_seconds: how long one document may be read, and one of its pages drawn.
    """

    mode: DocumentMode = DocumentMode.AUTO
    html: HTMLMode = HTMLMode.TEXT
    max_bytes: int = 32 * 1024 * 1024
    max_pages: int = 100
    max_page_px: int = 2000
    max_chars: int = 100_000
    max_seconds: float = 20.0
