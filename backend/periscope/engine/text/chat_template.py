"""Renders messages with a model's chat template, tokenises them, and tells the parsers its output format.

Used from small executor threads (tokenising is CPU work); a lock guards the tokenizer, which is not thread-safe.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError

from periscope.core import Image, JSONObject, OutputFormat, TokenText, ToolCallStyle
from periscope.engine.text.continuation import TurnOpener
from periscope.engine.text.fill_in_middle import FillInMiddle, fill_in_middle_of
from periscope.engine.text.images import PlacedImage, PromptImages, images_of
from periscope.engine.text.message_rewrites import REASONING_KEYS, Messages, without_volatile_lines
from periscope.engine.text.output_format import hermes_calls, output_format_of, template_text
from periscope.engine.text.prompt_bounds import PromptBounds, certain_texts
from periscope.engine.text.template_fit import FittedChat, Render, TemplateFit, ToolPlace
from periscope.engine.text.template_messages import template_message, told_text, tool_schema
from periscope.engine.text.thinking_format import ThinkingFormat, thinking_format
from periscope.engine.text.token_text import TokenTable
from periscope.errors import InvalidRequest, ModelLoadError

if TYPE_CHECKING:
    from periscope.core import Message, TextPrompt, Tool
    from periscope.engine.text.images import ImageTokenizer


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt ready for the worker.

    Attributes:
        starts_in_reasoning: the template has opened the think block, so that the completion starts inside it.
        checkpoints: lengths, in tokens, of the proper prefixes that later prompts are likely to share, ascending. Empty
            unless the `ChatTokenizer` was made with `wants_checkpoints`.
        images: those in the prompt, in order.
        continues_text: the prompt ends within a text that the completion goes on with, see `OutputFormat`.
        is_chat: what follows is a turn of the assistant. Else it is text, in which nothing is reasoning or a call.
        end_token_ids: tokens that end the completion besides the model's own end tokens.
        prediction: tokens that the completion is likely to hold, which may be drafted.
    """

    token_ids: tuple[int, ...]
    starts_in_reasoning: bool = False
    checkpoints: tuple[int, ...] = ()
    images: tuple[PlacedImage, ...] = ()
    continues_text: bool = False
    is_chat: bool = True
    end_token_ids: tuple[int, ...] = ()
    prediction: tuple[int, ...] = ()


#: Arguments of `apply_chat_template` in transformers and mlx-lm, which share a namespace with the template's variables.
#: A client must not set them: they replace the template (which may loop for ever), the messages or the return type.
_NO_TEMPLATE_SETTINGS = frozenset(
    {
        "conversation",
        "messages",
        "tools",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "tokenizer_kwargs",
        "sanitize_control_tokens",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
    }
)
#: Effort that gpt-oss was not trained on -> the nearest that it was.
_HARMONY_EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
#: A text that no user message starts with. Two prompts that differ in their first user message diverge right before it.
_NO_USER_TEXT = "\u2063"


class ChatTokenizer:
    """Owns one model's tokenizer outside its worker, and its lock. Construction probes the chat template and blocks.

    Args:
        template_kwargs: variables for the chat template (`enable_thinking`, ...).
        vocab_size: width of the model's logits; None = the tokenizer's size.
        context_length: in tokens; a prompt that is certain to be longer is refused before it is fully tokenised.
        wants_checkpoints: find a prompt's checkpoints, which renders and tokenises its shared prefixes once more.
        image_tokenizer: writes images into prompts; None = the model takes no images.
        thinking_end_message: see `thinking_format`.
        tool_parser, reasoning_parser: see `output_format_of`.

    Raises:
        ModelLoadError: the chat template cannot be used with images.
    """

    def __init__(
        self,
        tokenizer: Any,
        template_kwargs: JSONObject,
        *,
        vocab_size: int | None = None,
        context_length: int | None = None,
        wants_checkpoints: bool = False,
        image_tokenizer: ImageTokenizer | None = None,
        thinking_end_message: str = "",
        tool_parser: str | None = None,
        reasoning_parser: str | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template_kwargs = template_kwargs
        self._vocab_size = vocab_size or len(tokenizer)
        self._wants_checkpoints = wants_checkpoints
        self._lock = threading.Lock()
        self._bounds = PromptBounds(tokenizer, context_length)
        self._control_tokens = _control_tokens_of(tokenizer)
        self._reasoning_keys = _reasoning_keys_of(template_text(tokenizer))
        self._images: PromptImages | None = None
        if image_tokenizer is not None and self.has_chat_template:
            self._images = PromptImages(image_tokenizer, self._renderer(template_kwargs), tokenizer.get_added_vocab())
        self._fit = TemplateFit(self._renderer(template_kwargs)) if self.has_chat_template else None
        self.output_format = self._output_format(tool_parser, reasoning_parser)
        self.thinking = self._thinking_format(thinking_end_message)

    @property
    def has_chat_template(self) -> bool:
        """Whether `render` can be used."""
        return bool(self._tokenizer.has_chat_template)

    @property
    def has_tools(self) -> bool:
        """Whether tools can be put into the prompt, and the model's tool calls can be parsed."""
        return self.output_format.has_tools and (self._fit is None or self._fit.tool_place is not ToolPlace.NOWHERE)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the chat template leaves out, and how messages are rewritten because of it; for the log."""
        return () if self._fit is None else self._fit.notes

    def check_template(self) -> None:
        """Check the syntax of the chat template.

        Raises:
            ModelLoadError: it has an error; names the line.
        """
        try:
            self._renderer(self._template_kwargs)([{"role": "user", "content": "Hello"}], [])
        except TemplateSyntaxError as error:
            raise ModelLoadError(f"`chat_template` has an error in line {error.lineno}: {error.message}") from None
        except Exception:  # noqa: BLE001 - a template may refuse a conversation such as this
            return

    def encode(self, text: str, *, adds_special_tokens: bool = True) -> tuple[int, ...]:
        """Token ids of a plain text of any length. Takes the lock.

        Args:
            adds_special_tokens: also those with which the tokenizer opens or closes a text (BOS, EOS).
        """
        with self._lock:
            return tuple(self._tokenizer.encode(text, add_special_tokens=adds_special_tokens))

    def token_texts(self, token_ids: Sequence[int]) -> tuple[TokenText, ...]:
        """Each token's own text and bytes. Takes the lock."""
        with self._lock:
            return tuple(self._token_table.text(token_id) for token_id in token_ids)

    @cached_property
    def _token_table(self) -> TokenTable:
        """Made at its first use, because most servers are never asked for it. Under the lock."""
        return TokenTable(self._tokenizer)

    def text_prompt(self, prompt: TextPrompt) -> RenderedPrompt:
        """Tokenise a plain text, or fill in the middle before its suffix. Blocks; takes the lock.

        Raises:
            InvalidRequest: there is a suffix, and the tokenizer has no markers for one; or a token id is unknown.
            ContextLengthExceeded: it is certain not to fit; raised before all of it is tokenised.
        """
        source, suffix = prompt.source, prompt.suffix
        with self._lock:
            middle = None if suffix is None else self._fill_in_middle
            self._bounds.check([text for text in (source, suffix) if isinstance(text, str)])
            opens = prompt.adds_special_tokens and middle is None
            token_ids = self._text_tokens(source, adds_special_tokens=opens, param=prompt.param)
            if middle is None or suffix is None:
                return RenderedPrompt(token_ids, continues_text=True, is_chat=False)
            token_ids = middle.prompt(token_ids, self._text_tokens(suffix, adds_special_tokens=False, param="suffix"))
            if prompt.adds_special_tokens:
                token_ids = (*self._opening_tokens, *token_ids)
            return RenderedPrompt(token_ids, continues_text=True, is_chat=False, end_token_ids=middle.end_token_ids)

    def _text_tokens(self, source: str | tuple[int, ...], *, adds_special_tokens: bool, param: str) -> tuple[int, ...]:
        """The tokens of a text, or those that were sent. Under the lock."""
        if isinstance(source, str):
            encode = partial(self._tokenizer.encode, add_special_tokens=adds_special_tokens)
            return self._bounds.encode(encode, source)
        self._bounds.check_tokens(len(source))
        return self.checked(source, param)

    @cached_property
    def _fill_in_middle(self) -> FillInMiddle:
        """Found at its first use. Under the lock."""
        return fill_in_middle_of(self._tokenizer.get_vocab())

    @cached_property
    def _opening_tokens(self) -> tuple[int, ...]:
        """What the tokenizer writes before a text: BOS, if anything. Under the lock."""
        opening = tuple(self._tokenizer.encode("", add_special_tokens=True))[:1]
        return opening if opening == (self._tokenizer.bos_token_id,) else ()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        with self._lock:
            return str(self._tokenizer.decode(list(token_ids)))

    def checked(self, token_ids: Sequence[int], param: str = "prompt") -> tuple[int, ...]:
        """Return the ids if all are in the vocabulary. An id outside it would read out of bounds in the embedding.

        Args:
            param: the request's field that holds them.

        Raises:
            InvalidRequest: an id is outside the vocabulary.
        """
        for token_id in token_ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(f"Token id {token_id} is outside of 0 to {self._vocab_size - 1}.", param=param)
        return tuple(token_ids)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        template_kwargs: JSONObject | None = None,
        *,
        continues: bool = False,
    ) -> RenderedPrompt:
        """Render and tokenise a chat, with the assistant's turn opened. Blocks; takes the lock.

        Messages and tools that the template refuses or would leave out are rewritten first (`template_fit`).

        Args:
            template_kwargs: the request's template variables; they override the model's.
            continues: the last message is the turn that is open, and holds text or reasoning.

        Raises:
            InvalidRequest: the template refuses the messages, or leaves a part of them out, in every rewritten form;
                or they hold images, and the model has no vision.
            ContextLengthExceeded: they are certain not to fit; raised before they are fully tokenised.
        """
        if self._fit is None:
            raise InvalidRequest("This model has no chat template: it completes plain text only.", param="model")
        with self._lock:
            self._bounds.check(
                certain_texts(messages, tools, self.output_format.think_end),
                num_messages=sum(bool(message.text.strip()) for message in messages),
            )
        images = images_of(messages)
        plain = [
            template_message(message, self._control_tokens, self._reasoning_keys)
            for message in self._with_placeholders(messages, images)
        ]
        own = self._as_trained(_checked_settings(template_kwargs or {}))
        kwargs = {**self._template_kwargs, **own}
        render = self._renderer(kwargs, images)
        schemas, plain = [tool_schema(tool) for tool in tools], without_volatile_lines(plain)
        with self._lock:
            if continues:
                closed = self._renderer(kwargs, images, opens_turn=False)
                turn = TurnOpener(self._fit, closed, render, self.output_format).open(plain, schemas)
                chat, starts_in_reasoning = turn.chat, turn.in_reasoning
            else:
                chat = self._fit.fit(plain, schemas, render)
                think_start = self.output_format.think_start
                starts_in_reasoning = bool(think_start) and chat.text.rstrip().endswith(str(think_start))
            token_ids = self._bounds.encode(partial(self._tokenizer.encode, add_special_tokens=False), chat.text)
            checkpoints: tuple[int, ...] = ()
            if self._wants_checkpoints:
                checkpoints = self._checkpoints(chat, token_ids, self._renderer(kwargs, images, opens_turn=False))
            placed = () if self._images is None else self._images.placed(token_ids, images, chat.messages)
        return RenderedPrompt(token_ids, starts_in_reasoning, checkpoints, placed, continues_text=continues)

    def _as_trained(self, template_kwargs: JSONObject) -> JSONObject:
        """The variables with an effort that the model was trained on, for gpt-oss, whose prompt holds the word."""
        effort = template_kwargs.get("reasoning_effort")
        if self.output_format.tool_call_style is not ToolCallStyle.HARMONY or effort not in _HARMONY_EFFORTS:
            return template_kwargs
        return template_kwargs | {"reasoning_effort": _HARMONY_EFFORTS[effort]}

    def _with_placeholders(self, messages: Sequence[Message], images: Sequence[Image]) -> Sequence[Message]:
        if self._images is not None:
            return self._images.with_placeholders(messages, partial(told_text, control_tokens=self._control_tokens))
        if images:
            raise InvalidRequest("This model takes no images: it was loaded without its vision part.", param="messages")
        return messages

    def _output_format(self, tool_parser: str | None, reasoning_parser: str | None) -> OutputFormat:
        own = output_format_of(self._tokenizer, tool_parser, reasoning_parser)
        is_told_hermes = tool_parser is None and self._fit is not None and self._fit.tool_place is ToolPlace.SYSTEM
        return hermes_calls(own) if is_told_hermes else own

    def _thinking_format(self, message: str) -> ThinkingFormat | None:
        """How thinking is marked and ended; None if the model marks none."""
        return thinking_format(
            self.output_format,
            partial(self._tokenizer.encode, add_special_tokens=False),
            self._renderer(self._template_kwargs, opens_turn=False) if self.has_chat_template else None,
            reasoning_keys=self._reasoning_keys,
            message=message,
        )

    def _renderer(self, kwargs: JSONObject, images: Sequence[Image] = (), *, opens_turn: bool = True) -> Render:
        def render(chat: Messages, schemas: list[JSONObject]) -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    chat, tools=schemas or None, tokenize=False, add_generation_prompt=opens_turn, **kwargs
                )
            )

        return render if self._images is None else self._images.renderer(render, images)

    def _checkpoints(self, chat: FittedChat, token_ids: tuple[int, ...], render: Render) -> tuple[int, ...]:
        lengths: set[int] = set()
        for prefix in _shared_prefixes(chat.messages):
            try:
                shorter = render(prefix, chat.schemas)
            except Exception:  # noqa: BLE001 - see `Render`; a missing checkpoint costs only time
                shorter = ""
            shared = shorter[: _common_length(shorter, chat.text)]
            alone = self._tokenizer.encode(shared, add_special_tokens=False)
            lengths.add(_common_length(alone, token_ids))
        return tuple(sorted(length for length in lengths if 0 < length < len(token_ids)))


def _checked_settings(template_kwargs: JSONObject) -> JSONObject:
    """Return the settings if all are variables of the template.

    Raises:
        InvalidRequest: one is an argument of the function that renders templates (`_NO_TEMPLATE_SETTINGS`).
    """
    for name in template_kwargs:
        if name in _NO_TEMPLATE_SETTINGS:
            raise InvalidRequest(
                f"`chat_template_kwargs.{name}` cannot be set: it is no variable of chat templates. Leave it out.",
                param=f"chat_template_kwargs.{name}",
            )
    return template_kwargs


def _shared_prefixes(chat: Messages) -> tuple[Messages, Messages]:
    """Two chats that later prompts may start with: the system messages, and the whole chat without a new turn.

    The first ends with a placeholder user message, because some templates refuse a chat without one.
    """
    system = list(itertools.takewhile(lambda message: message["role"] == "system", chat))
    return [*system, {"role": "user", "content": _NO_USER_TEXT}], chat


def _common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of the common prefix of two sequences."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _control_tokens_of(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern of all added tokens, which the tokenizer recognises in any text; None if there are none."""
    tokens = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))) if tokens else None


def _reasoning_keys_of(template: str) -> tuple[str, ...]:
    """The reasoning keys that the template mentions; the usual one if it mentions none."""
    read = (key for key in REASONING_KEYS if re.search(rf"""\.{key}\b|['"]{key}['"]""", template))
    return tuple(read) or REASONING_KEYS[:1]
