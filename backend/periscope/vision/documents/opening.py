"""DocumentOpening replaces the documents of a conversation by text and by pictures of pages. Event loop only.

What a page becomes is decided by `DocumentMode`. The pictures are not drawn here: they go the way of every picture, so
that a page whose caption and text are known is never drawn.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from periscope.core import FilePart, Image, ImagePart, Message, Part, Role, TextPart
from periscope.errors import DocumentInvalid
from periscope.vision.documents.file import DocumentFile, FileKind, read_file
from periscope.vision.documents.pdf import PageContent, PageFile, check_num_pages, page_file
from periscope.vision.documents.process import ConvertedText, DocumentProcess
from periscope.vision.documents.settings import DocumentMode, DocumentSettings
from periscope.vision.prompts import (
    Label,
    blank_page,
    clean_text,
    document_block,
    document_label,
    document_marker,
    page_label,
)
from periscope.vision.threads import Threads

logger = logging.getLogger(__name__)

#: Documents of recent conversations whose pages are remembered, and the characters of all of them together.
_MAX_KNOWN: Final = 64
_MAX_KNOWN_CHARS: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PageImage(ImagePart):
    """A page that is shown as a picture. It has no address: it is drawn from its file."""

    page: PageFile
    label: Label
    process: DocumentProcess

    def drawn(self, *, max_side_px: int, sha256: str) -> Image:
        """Blocks: its pixels, as `DocumentProcess.draw` gives and raises."""
        return self.process.draw(self.page, max_side_px=max_side_px, sha256=sha256)


@dataclass(frozen=True, slots=True)
class _Place:
    """A document, its number in the conversation from 1, and whether it may be missing or broken.

    The newest message of the user has to be right, and a mistake in it is told. What stands in earlier turns or came
    from a tool cannot be mended any more: an error would end the conversation.
    """

    number: int
    part: FilePart
    is_lenient: bool


@dataclass(frozen=True, slots=True)
class _Unread:
    """A document that the conversation goes on without, and why."""

    reason: str


#: What opening a file gave: the pages of a PDF, the text of what had to be converted; of other files nothing.
_Content: TypeAlias = tuple[PageContent, ...] | ConvertedText | None


class DocumentOpening:
    """Owns the process that opens documents, and what recent ones hold: none is opened again in every turn."""

    def __init__(self) -> None:
        self._process = DocumentProcess()
        self._known: OrderedDict[str, _Content] = OrderedDict()

    async def opened(
        self, messages: Sequence[Message], settings: DocumentSettings, threads: Threads
    ) -> tuple[Message, ...]:
        """The messages without `FilePart`s: text parts, `PageImage`s, and images that were sent as files.

        Raises:
            DocumentInvalid: a document of the newest user message cannot be taken; the first one is told.
            ServerBusy: other documents were being read all the time.
            ServerStopping: the threads take nothing any more.
        """
        places = list(_places(messages))
        if not places:
            return tuple(messages)
        files = await threads.all(partial(_read, place, settings) for place in places)
        contents = await threads.all(
            partial(_content, place, file, self._known_of(file), settings, self._process)
            for place, file in zip(places, files, strict=True)
        )
        for file, content in zip(files, contents, strict=True):
            if isinstance(file, DocumentFile) and file.sha256 and not isinstance(content, _Unread):
                self._remember(file.sha256, content)
        parts = iter(
            [
                _shown(place, file, content, settings, self._process)
                for place, file, content in zip(places, files, contents, strict=True)
            ]
        )
        return tuple(_with_parts(message, parts) for message in messages)

    def _known_of(self, file: DocumentFile | _Unread) -> _Content:
        return self._known.get(file.sha256) if isinstance(file, DocumentFile) else None

    def _remember(self, sha256: str, content: _Content) -> None:
        self._known[sha256] = content
        self._known.move_to_end(sha256)
        num_chars = sum(map(_num_chars, self._known.values()))
        while len(self._known) > _MAX_KNOWN or (num_chars > _MAX_KNOWN_CHARS and len(self._known) > 1):
            _, dropped = self._known.popitem(last=False)
            num_chars -= _num_chars(dropped)


def _num_chars(content: _Content) -> int:
    if isinstance(content, tuple):
        return sum(len(page.text) for page in content)
    return 0 if content is None else len(content.text)


def _places(messages: Sequence[Message]) -> Iterator[_Place]:
    last_user = max((at for at, message in enumerate(messages) if message.role is Role.USER), default=-1)
    number = 0
    for at, message in enumerate(messages):
        for part in message.files:
            number += 1
            yield _Place(number, part, is_lenient=at < last_user or message.role is Role.TOOL)


def _read(place: _Place, settings: DocumentSettings) -> DocumentFile | _Unread:
    try:
        return read_file(place.part, settings)
    except DocumentInvalid as error:
        return _forgiven(error, place)


def _content(
    place: _Place,
    file: DocumentFile | _Unread,
    known: _Content,
    settings: DocumentSettings,
    process: DocumentProcess,
) -> _Content | _Unread:
    if isinstance(file, _Unread):
        return file
    param = place.part.param
    try:
        content = known if known is not None else _opened(file, settings, process, param)
        if isinstance(content, tuple):
            check_num_pages(len(content), settings, param=param)
    except DocumentInvalid as error:
        return _forgiven(error, place)
    return content


def _opened(file: DocumentFile, settings: DocumentSettings, process: DocumentProcess, param: str) -> _Content:
    match file.kind:
        case FileKind.PDF:
            return process.read_pages(file.data, settings, param=param)
        case FileKind.OFFICE:
            return process.office_text(file.data, settings, param=param)
        case FileKind.HTML:
            return process.html_text(file.text, settings, param=param)
        case FileKind.PICTURE | FileKind.TEXT:
            return None


def _forgiven(error: DocumentInvalid, place: _Place) -> _Unread:
    """What the text model is told instead of the client, where that may be; else the error is raised."""
    if not place.is_lenient:
        raise error
    logger.warning("document %d of a conversation was left out: %s", place.number, error.reason)
    return _Unread(error.reason)


def _shown(
    place: _Place,
    file: DocumentFile | _Unread,
    content: _Content | _Unread,
    settings: DocumentSettings,
    process: DocumentProcess,
) -> list[Part]:
    """What stands in the place of a document."""
    label = document_label(place.number, place.part.name)
    if isinstance(file, _Unread):
        return [_words(document_marker(label, file.reason))]
    if isinstance(content, _Unread):
        return [_words(document_marker(label, content.reason))]
    if file.kind is FileKind.PICTURE:
        return [ImagePart(place.part.url or "", place.part.param)]
    if not isinstance(content, tuple):
        whole = content or file
        text, rest = _cut(clean_text(whole.text), settings.max_chars)
        return [_words(document_block(label, text + rest, whole.note))]
    try:
        return _pages_shown(place, file, content, settings, process)
    except DocumentInvalid as error:
        return [_words(document_marker(label, _forgiven(error, place).reason))]


def _pages_shown(
    place: _Place,
    file: DocumentFile,
    pages: Sequence[PageContent],
    settings: DocumentSettings,
    process: DocumentProcess,
) -> list[Part]:
    """The blocks and pictures of a PDF's pages, in their order.

    Raises:
        DocumentInvalid: a page's size is none.
    """
    parts: list[Part] = []
    param, room, num_left_out = place.part.param, settings.max_chars, 0
    for index, content in enumerate(pages):
        label = page_label(place.number, index + 1, len(pages), place.part.name)
        text = "" if settings.mode is DocumentMode.PAGES else clean_text(content.text)
        if text and room > 0:
            kept, rest = _cut(text, room)
            parts.append(_words(document_block(label, kept + rest)))
            room -= len(text)
        elif text:
            num_left_out += 1
        if content.is_blank:
            parts.append(_words(blank_page(label)))
        elif _is_shown(content, settings.mode, has_text=bool(text)):
            page = page_file(file.data, file.sha256, index, content, settings, param=param)
            parts.append(PageImage("", param, page, label, process))
        elif not text:
            parts.append(_words(document_marker(label, "it has no text, and pages are not looked at as pictures")))
    if num_left_out:
        reason = f"only the first {settings.max_chars} characters of a document are taken"
        label = document_label(place.number, place.part.name, f"the text of its last {num_left_out} pages with text")
        parts.append(_words(document_marker(label, reason)))
    return parts


def _is_shown(content: PageContent, mode: DocumentMode, *, has_text: bool) -> bool:
    """Pure: whether a page that is not blank is looked at as a picture."""
    match mode:
        case DocumentMode.TEXT:
            return False
        case DocumentMode.PAGES | DocumentMode.BOTH:
            return True
        case DocumentMode.AUTO:
            return content.has_figures or not has_text


def _cut(text: str, max_chars: int) -> tuple[str, str]:
    """The text's beginning, and a line that says what was cut off, if anything was."""
    if len(text) <= max_chars:
        return text, ""
    return text[:max_chars], f"\n(cut off: {len(text) - max_chars} more characters are not shown)"


def _words(text: str) -> TextPart:
    return TextPart(text, is_data=True)


def _with_parts(message: Message, parts: Iterator[list[Part]]) -> Message:
    if not message.files:
        return message
    shown = [next(parts) if isinstance(part, FilePart) else [part] for part in message.parts]
    return replace(message, parts=tuple(each for group in shown for each in group))
