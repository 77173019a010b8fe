"""How one text model has the images of its requests described. Plain data, as models.yaml says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from periscope.vision.documents.settings import DocumentSettings
from periscope.vision.images.limits import ImageLimits
from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT, LOOK_FORM, QUESTION_FORM
from periscope.vision.readers.model_reader import ModelReader
from periscope.vision.readers.reader import TextReader
from periscope.vision.videos.settings import VideoSettings


class OnError(StrEnum):
    """What an image becomes whose captioner is broken: a marker block in the prompt, or an error to the client.

    A captioner that is only busy is neither: the client gets `ServerBusy`, and its next try an answer.
    """

    MARKER = "marker"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """How one text model has the text in its images read.

    Attributes:
        max_side_px: the longest side that the reader sees; larger images are scaled down.
        max_chars: the longest text of an image; the rest is cut off.
        timeout_s: how long the reader may work on one image. Waiting for other images does not count.
    """

    reader: TextReader | ModelReader
    max_side_px: int = 2000
    max_chars: int = 8000
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How one text model has its images described.

    Attributes:
        prompt: what the captioner is asked about every image.
        max_tokens: the longest caption.
        timeout_s: how long the captioner may work on all captions of a request; neither loads nor waits are in it.
        max_looks: how often in one answer the text model may have an image looked at again; 0 = it is not offered to.
        question_form: the prompt that shows a question, too; `{prompt}` and `{question}` stand for them.
        look_form: the prompt of a look at an image again, with `{question}`.
        use_question: tell the captioner the text of the image's message; captions then depend on it.
        reading: how the text in images is read, beside the captions; None = it is not.
        documents: how PDFs and text files are read.
        video: how videos are sampled; None = they are refused.
    """

    prompt: str = DEFAULT_CAPTION_PROMPT
    question_form: str = QUESTION_FORM
    look_form: str = LOOK_FORM
    max_tokens: int = 256
    timeout_s: float = 60.0
    on_error: OnError = OnError.MARKER
    use_question: bool = False
    max_looks: int = 0
    limits: ImageLimits = ImageLimits()
    reading: ReadingSettings | None = None
    documents: DocumentSettings = DocumentSettings()
    video: VideoSettings | None = VideoSettings()
