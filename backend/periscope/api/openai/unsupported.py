"""What a request asks for that is not supported: refused by name if it would change the answer, else for the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from periscope.api.errors import UnsupportedParameter
from periscope.api.fields import FieldTable, noted_fields, refuse_fields
from periscope.api.openai.fields import CHAT_FIELDS
from periscope.api.validation import Wire
from periscope.api.wording import clip

if TYPE_CHECKING:
    from periscope.api.openai.schema import ChatCompletionWire, GenerationWire, MessageWire

_PICTURES = "put each picture into `content` as an `image_url` part"
_FILES = "put pictures into `content` as `image_url` parts, and what files say as text"
_TEXT = "put it into `content`"
_CALLS = "send `tool_calls`, and messages of the role `tool` for their results"
#: Beside `content` these repeat it; the AI SDK's and Google's messages have them in its place.
_COPIES = ("parts", "text", "contents")
#: Fields of a message in which other dialects carry content -> what to do instead. Fields that are not listed here
#: describe a message (`id`, `cache_control`, `annotations`) and are not part of any prompt.
_CONTENT_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("images", "image", "image_url", "image_urls", "input_image"), _PICTURES),
    **dict.fromkeys(("files", "file", "file_ids", "attachments", "experimental_attachments"), _FILES),
    **dict.fromkeys(("documents", "document", "audio", "audios", "input_audio", "video", "videos"), _FILES),
    **dict.fromkeys(_COPIES, _TEXT),
    **dict.fromkeys(("toolInvocations", "tool_results", "tool_responses"), _CALLS),
}

#: Arguments of the code around a chat template, which are not variables of the template.
_NO_TEMPLATE_VARIABLES = frozenset(
    {
        *("self", "messages", "conversation", "tools", "chat_template", "tokenize", "tokenizer_kwargs"),
        *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    }
)


def refuse_unsupported(wire: ChatCompletionWire) -> None:
    """Pure: refuse fields that are not supported.

    Raises:
        UnsupportedParameter: names the first such field.
    """
    refuse_fields(wire.model_extra, CHAT_FIELDS)
    if wire.structured_outputs is not None:
        for name, value in (wire.structured_outputs.model_extra or {}).items():
            if value not in (None, False):
                raise _unsupported(f"structured_outputs.{clip(name)}")
    for name in wire.chat_template_kwargs or {}:
        if name in _NO_TEMPLATE_VARIABLES:
            raise _unsupported(f"chat_template_kwargs.{name}")


def unused_fields(wire: GenerationWire, table: FieldTable) -> Iterator[str]:
    """Pure: the places of what is accepted and not used although it might matter."""
    yield from noted_fields(wire.model_extra, table)
    for name in ("stream_options", "reasoning", "thinking"):
        nested = getattr(wire, name, None)  # a field that the wire model does not have may hold anything
        if isinstance(nested, Wire):
            yield from noted_fields(nested.model_extra, table, f"{name}.")


def refuse_unread(message: MessageWire, path: str) -> None:
    """Pure: refuse fields of a message with content that would not reach the model.

    Raises:
        UnsupportedParameter: names the first such field.
    """
    for name, value in (message.model_extra or {}).items():
        is_content = name in _CONTENT_FIELDS and not (name in _COPIES and message.content)
        if value and (is_content or _holds_data(value)):
            param = f"{path}.{clip(name)}"
            way_out = _CONTENT_FIELDS.get(name, _PICTURES)
            raise UnsupportedParameter(f"`{param}` is not read: {way_out}.", param=param)


def _holds_data(value: Any) -> bool:
    """Whether it holds a file as a `data:` URL at any depth."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str) and one.startswith("data:"):
            return True
        if isinstance(one, (dict, list)):
            pending += one.values() if isinstance(one, dict) else one
    return False


def _unsupported(param: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"`{param}` is not supported; leave it out.", param=param)
