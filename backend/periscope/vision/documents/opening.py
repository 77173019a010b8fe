"""FileOpening replaces the files of a conversation by text, and by images of pages and frames. Event loop only.

What a page becomes is decided by `DocumentMode`. Pages are not drawn here: they go the way of every image, so that a
page whose caption and text are known is never drawn.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from periscope.core import FilePart, Image, ImagePart, Message, Part, Role, TextPart
from periscope.errors import DocumentInvalid, FileInvalid, VideoInvalid
from periscope.vision.documents.file import DocumentFile, FileKind, read_file
from periscope.vision.documents.pdf import PageContent, PageFile, check_num_pages, page_file
from periscope.vision.documents.process import ConvertedText, DocumentProcess
from periscope.vision.documents.settings import DocumentMode, DocumentSettings
from periscope.vision.drawn import DrawnImage
from periscope.vision.images.decode import ImageHeader
from periscope.vision.numbering import Numbered
from periscope.vision.prompts import (
    blank_page,
    clean_text,
    document_block,
    document_label,
    file_marker,
    moment_label,
    page_label,
    video_label,
)
from periscope.vision.settings import ProxySettings
from periscope.vision.threads import Threads
from periscope.vision.videos.facts import VideoFacts
from periscope.vision.videos.process import VideoProcess
from periscope.vision.videos.settings import VideoSettings
from periscope.vision.videos.video import FrameImage, Video

logger = logging.getLogger(__name__)

#: Documents of recent conversations whose pages are remembered, and the characters of all of them together.
_MAX_KNOWN: Final = 64
_MAX_KNOWN_CHARS: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PageImage(DrawnImage):
    """A page that is shown as an image."""

    page: PageFile
    process: DocumentProcess

    @property
    def header(self) -> ImageHeader:
        sha256 = hashlib.sha256(self.page.facts.encode()).hexdigest()
        return ImageHeader(self.page.width, self.page.height, sha256)

    def drawn(self, *, max_side_px: int) -> Image:
        """Blocks: as `DrawnImage` says."""
        return self.process.draw(self.page, max_side_px=max_side_px, sha256=self.header.sha256)


@dataclass(frozen=True, slots=True)
class _Place:
    """An attached file, and whether it may be missing or broken.

    The newest message of the user has to be right, and a mistake in it is told. What stands in earlier turns or came
    from a tool cannot be mended any more: an error would end the conversation.
    """

    part: FilePart
    is_lenient: bool


@dataclass(frozen=True, slots=True)
class _Unread:
    """A file that the conversation goes on without, and why."""

    reason: str
    is_video: bool


@dataclass(frozen=True, slots=True)
class _Processes:
    """Where files are opened."""

    documents: DocumentProcess
    videos: VideoProcess


#: What is remembered of a file that was opened.
_Known: TypeAlias = tuple[PageContent, ...] | ConvertedText | VideoFacts
#: What opening a file gave: the pages of a PDF, text that was converted, a sampled video; of other files nothing.
_Content: TypeAlias = tuple[PageContent, ...] | ConvertedText | Video | None


class FileOpening:
    """Owns the processes that open files, and what recent ones hold: none is opened again in every turn."""

    def __init__(self, *, videos: VideoProcess | None = None) -> None:
        self._processes = _Processes(DocumentProcess(), videos or VideoProcess())
        self._known: OrderedDict[tuple[str, VideoSettings | None], _Known] = OrderedDict()

    async def opened(
        self, messages: Sequence[Message], settings: ProxySettings, threads: Threads, before: Numbered = Numbered()
    ) -> tuple[tuple[Message, ...], Numbered]:
        """The messages without `FilePart`s: text parts, `DrawnImage`s, and images that were sent as files.

        Args:
            before: the numbers that earlier messages of the conversation have taken.

        Returns:
            The messages, and the numbers that are taken with them; images are not counted here.

        Raises:
            DocumentInvalid, VideoInvalid: a file of the newest user message cannot be taken; the first one is told.
            ServerBusy: other files were being read all the time.
            ServerStopping: the threads take nothing any more.
        """
        places = list(_places(messages))
        if not places:
            return tuple(messages), before
        files = await threads.all(partial(_read, place, settings) for place in places)
        contents = await threads.all(
            partial(_content, place, file, self._known.get(_known_key(file, settings)), settings, self._processes)
            for place, file in zip(places, files, strict=True)
        )
        for file, content in zip(files, contents, strict=True):
            if content is not None and not isinstance(content, _Unread):
                self._remember(_known_key(file, settings), content.facts() if isinstance(content, Video) else content)
        numbers = list(_numbers(files, before))
        parts = iter(
            [
                _shown(place, file, content, settings.documents, self._processes, number=number)
                for place, file, content, number in zip(places, files, contents, numbers, strict=True)
            ]
        )
        num_videos = sum(file.is_video for file in files)
        numbered = replace(
            before, documents=before.documents + len(files) - num_videos, videos=before.videos + num_videos
        )
        return tuple(_with_parts(message, parts) for message in messages), numbered

    def _remember(self, key: tuple[str, VideoSettings | None], known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        num_chars = sum(map(_num_chars, self._known.values()))
        while len(self._known) > _MAX_KNOWN or (num_chars > _MAX_KNOWN_CHARS and len(self._known) > 1):
            _, dropped = self._known.popitem(last=False)
            num_chars -= _num_chars(dropped)


def _known_key(file: DocumentFile | _Unread, settings: ProxySettings) -> tuple[str, VideoSettings | None]:
    if isinstance(file, _Unread):
        return "", None
    return file.sha256, settings.video if file.kind is FileKind.VIDEO else None


def _num_chars(known: _Known) -> int:
    match known:
        case ConvertedText():
            return len(known.text)
        case VideoFacts():
            return 0
        case pages:
            return sum(len(page.text) for page in pages)


def _places(messages: Sequence[Message]) -> Iterator[_Place]:
    last_user = max((at for at, message in enumerate(messages) if message.role is Role.USER), default=-1)
    for at, message in enumerate(messages):
        for part in message.files:
            yield _Place(part, is_lenient=at < last_user or message.role is Role.TOOL)


def _numbers(files: Iterable[DocumentFile | _Unread], before: Numbered) -> Iterator[int]:
    """Documents and videos are counted apart, each from 1 through the whole conversation."""
    num_videos, num_documents = before.videos, before.documents
    for file in files:
        if file.is_video:
            num_videos += 1
            yield num_videos
        else:
            num_documents += 1
            yield num_documents


def _read(place: _Place, settings: ProxySettings) -> DocumentFile | _Unread:
    try:
        return read_file(place.part, settings.documents, settings.video)
    except FileInvalid as error:
        return _forgiven(error, place)


def _content(
    place: _Place, file: DocumentFile | _Unread, known: _Known | None, settings: ProxySettings, processes: _Processes
) -> _Content | _Unread:
    if isinstance(file, _Unread):
        return file
    param = place.part.param
    try:
        content = _opened(file, known, settings, processes, param)
        if isinstance(content, tuple):
            check_num_pages(len(content), settings.documents, param=param)
    except FileInvalid as error:
        return _forgiven(error, place)
    return content


def _opened(
    file: DocumentFile, known: _Known | None, settings: ProxySettings, processes: _Processes, param: str
) -> _Content:
    if settings.video is not None and file.kind is FileKind.VIDEO:
        facts = known if isinstance(known, VideoFacts) else None
        video = Video(file.data, file.sha256, settings.video, processes.videos, param=param, facts=facts)
        video.facts()
        return video
    if known is not None and not isinstance(known, VideoFacts):
        return known
    match file.kind:
        case FileKind.PDF:
            return processes.documents.read_pages(file.data, settings.documents, param=param)
        case FileKind.OFFICE:
            return processes.documents.office_text(file.data, settings.documents, param=param)
        case FileKind.HTML:
            return processes.documents.html_text(file.text, settings.documents, param=param)
        case _:
            return None


def _forgiven(error: FileInvalid, place: _Place) -> _Unread:
    """What the text model is told instead of the client, where that may be; else the error is raised."""
    if not place.is_lenient:
        raise error
    logger.warning("a file was left out of a conversation (%s): %s", error.param, error.reason)
    return _Unread(error.reason, is_video=isinstance(error, VideoInvalid))


def _shown(
    place: _Place,
    file: DocumentFile | _Unread,
    content: _Content | _Unread,
    settings: DocumentSettings,
    processes: _Processes,
    *,
    number: int,
) -> list[Part]:
    """What stands in the place of a file."""
    name, param = place.part.name, place.part.param
    label = video_label(number, name) if file.is_video else document_label(number, name)
    if isinstance(content, _Unread) or isinstance(file, _Unread):
        return [_words(file_marker(label, content.reason if isinstance(content, _Unread) else ""))]
    if file.kind is FileKind.PICTURE:
        return [ImagePart(place.part.url or "", param)]
    if isinstance(content, Video):
        times = content.facts().times
        return [FrameImage("", param, moment_label(label, at), label, content, index) for index, at in enumerate(times)]
    if not isinstance(content, tuple):
        whole = content or file
        text, rest = _cut(clean_text(whole.text), settings.max_chars)
        return [_words(document_block(label, text + rest, whole.note))]
    try:
        return _pages_shown(place, file, content, settings, processes.documents, number=number)
    except DocumentInvalid as error:
        return [_words(file_marker(label, _forgiven(error, place).reason))]


def _pages_shown(
    place: _Place,
    file: DocumentFile,
    pages: Sequence[PageContent],
    settings: DocumentSettings,
    process: DocumentProcess,
    *,
    number: int,
) -> list[Part]:
    """The blocks and pictures of a PDF's pages, in their order.

    Raises:
        DocumentInvalid: a page's size is none.
    """
    parts: list[Part] = []
    param, room, num_left_out = place.part.param, settings.max_chars, 0
    for index, content in enumerate(pages):
        label = page_label(number, index + 1, len(pages), place.part.name)
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
            parts.append(PageImage("", param, label, page, process))
        elif not text:
            parts.append(_words(file_marker(label, "it has no text, and pages are not looked at as pictures")))
    if num_left_out:
        reason = f"only the first {settings.max_chars} characters of a document are taken"
        label = document_label(number, place.part.name, f"the text of its last {num_left_out} pages with text")
        parts.append(_words(file_marker(label, reason)))
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
