"""Messages to prompt tokens: the model's own chat template and tokenizer, with what the parsers must know of them.

Used from small executor threads (tokenising is CPU work); a lock guards the tokenizer, which is not thread-safe.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from periscope.core import JSONObject, OutputFormat, Role, TextPart
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.core import Message, Tool


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt ready for the worker.

    Attributes:
        starts_in_reasoning: the template itself opened the think block.
    """

    token_ids: tuple[int, ...]
    starts_in_reasoning: bool = False


class ChatTokenizer:
    """Owns the locked use of one model's tokenizer outside its worker."""

    def __init__(self, tokenizer: Any, template_kwargs: JSONObject, *, vocab_size: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._template_kwargs = template_kwargs
        self._vocab_size = vocab_size or len(tokenizer)
        self._lock = threading.Lock()
        self._control_tokens = _control_tokens_of(tokenizer)
        self.output_format = _output_format_of(tokenizer)

    @property
    def has_chat_template(self) -> bool:
        """Whether `render` can be used."""
        return bool(self._tokenizer.has_chat_template)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        """Token ids of a plain text."""
        with self._lock:
            return tuple(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        with self._lock:
            return str(self._tokenizer.decode(list(token_ids)))

    def checked(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The same ids, known to be in the vocabulary (an id outside of it reads foreign memory).

        Raises:
            InvalidRequest: one is not.
        """
        for token_id in token_ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(f"Token id {token_id} is outside of 0 to {self._vocab_size - 1}.", param="prompt")
        return tuple(token_ids)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> RenderedPrompt:
        """The prompt the model was trained to answer, with the assistant's turn opened.

        Raises:
            InvalidRequest: the template refuses these messages (say, two system messages).
        """
        if not self.has_chat_template:
            raise InvalidRequest("This model has no chat template: it completes plain text only.", param="model")
        with self._lock:
            try:
                text = self._tokenizer.apply_chat_template(
                    [template_message(message, self._control_tokens) for message in messages],
                    tools=[tool_schema(tool) for tool in tools] or None,
                    tokenize=False,
                    add_generation_prompt=True,
                    **self._template_kwargs,
                )
            except Exception as error:
                # Jinja code of the model's authors: it may raise anything, mostly its own `raise_exception`.
                raise InvalidRequest(
                    f"The model's chat template refuses these messages: {error}", param="messages"
                ) from error
            token_ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        think_start = self.output_format.think_start
        return RenderedPrompt(token_ids, bool(think_start) and text.rstrip().endswith(str(think_start)))


def template_message(message: Message, control_tokens: re.Pattern[str] | None = None) -> JSONObject:
    """Pure: a message as chat templates expect it (the Hugging Face shape, string content, arguments as objects).

    Args:
        control_tokens: taken apart by a space wherever they stand in data parts, so that a picture that shows
            `<|im_end|>` cannot end the turn it is described in.
    """
    out: JSONObject = {"role": str(message.role), "content": _content(message, control_tokens)}
    if message.name is not None:
        out["name"] = message.name
    if message.role is Role.TOOL:
        out["tool_call_id"] = message.tool_call_id
    if message.reasoning:
        out["reasoning_content"] = message.reasoning
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return out


def _content(message: Message, control_tokens: re.Pattern[str] | None) -> str:
    texts = [part for part in message.parts if isinstance(part, TextPart)]
    return "\n".join(
        control_tokens.sub(lambda found: f"{found[0][0]} {found[0][1:]}", part.text)
        if part.is_data and control_tokens is not None
        else part.text
        for part in texts
    )


def _control_tokens_of(tokenizer: Any) -> re.Pattern[str] | None:
    """Every added token: those the tokenizer would take out of any text it meets."""
    tokens = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))) if tokens else None


def _arguments(text: str) -> Any:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def tool_schema(tool: Tool) -> JSONObject:
    """Pure: a tool as templates and mlx-lm's parsers expect it (the OpenAI shape)."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _output_format_of(tokenizer: Any) -> OutputFormat:
    has_tools = tokenizer.has_tool_calling and tokenizer.tool_parser is not None
    return OutputFormat(
        think_start=tokenizer.think_start if tokenizer.has_thinking else None,
        think_end=tokenizer.think_end if tokenizer.has_thinking else None,
        tool_start=tokenizer.tool_call_start if has_tools else None,
        tool_end=tokenizer.tool_call_end if has_tools else None,
        parse_tool_call=tokenizer.tool_parser if has_tools else None,
    )
