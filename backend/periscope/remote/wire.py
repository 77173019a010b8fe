"""The wire's shapes, as far as they are read: what OpenAI documents, and what servers of the field add. Pure.

Fields that are absent, null or unknown are no fault; a field of another type is one.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from periscope.core import VisionUsage
from periscope.errors import RemoteAnswerBroken
from periscope.remote.refusals import refusal_inside


class Wire(BaseModel):
    """Root of all shapes."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class BodyWire(Wire):
    """Root of what comes on its own, which may be an error in place of everything else."""

    error: Any = None


class FunctionWire(Wire):
    """The function of a tool call; streamed, its arguments come in pieces."""

    name: str | None = None
    arguments: str | None = None


class CallWire(Wire):
    """A tool call, or a piece of one. `index` is absent in whole answers."""

    index: NonNegativeInt | None = None
    id: str | None = None
    function: FunctionWire | None = None


class MessageWire(Wire):
    """A message, or a delta of one. Reasoning has two names: DeepSeek's, which is ours, and OpenRouter's."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallWire] | None = None


class ChoiceWire(Wire):
    """One choice of an answer (`message`), or a piece of one (`delta`)."""

    index: Annotated[int, Field(ge=0, lt=1024)] = 0
    delta: MessageWire | None = None
    message: MessageWire | None = None
    finish_reason: str | None = None


class PromptDetailsWire(Wire):
    """What `usage` tells of the prompt."""

    cached_tokens: NonNegativeInt | None = None


class CompletionDetailsWire(Wire):
    """What `usage` tells of the completion."""

    reasoning_tokens: NonNegativeInt | None = None
    accepted_prediction_tokens: NonNegativeInt | None = None
    rejected_prediction_tokens: NonNegativeInt | None = None


class UsageWire(Wire):
    """How many tokens an answer took."""

    prompt_tokens: NonNegativeInt | None = None
    completion_tokens: NonNegativeInt | None = None
    prompt_tokens_details: PromptDetailsWire | None = None
    completion_tokens_details: CompletionDetailsWire | None = None


class PeriscopeWire(Wire):
    """Our own extension: what a request waits for, and what its captions took."""

    status: str | None = None
    model: str | None = None
    position: int | None = None
    progress: float | None = None
    eta_s: float | None = None
    done: int | None = None
    total: int | None = None
    vision: VisionUsage | None = None


class CompletionWire(BodyWire):
    """A whole `chat.completion`, or a chunk of one."""

    choices: list[ChoiceWire] | None = None
    usage: UsageWire | None = None
    periscope: PeriscopeWire | None = None


class ModelWire(Wire):
    """One entry of a model listing. The context length has two names: ours, and vLLM's; `aliases` are ours."""

    id: str
    context_length: NonNegativeInt | None = None
    max_model_len: NonNegativeInt | None = None
    aliases: list[str] | None = None
    input_modalities: list[str] | None = None


class ModelsWire(BodyWire):
    """The answer of `GET /models`."""

    data: list[ModelWire] | None = None


WireT = TypeVar("WireT", bound=Wire)
BodyT = TypeVar("BodyT", bound=BodyWire)


def read_wire(shape: type[BodyT], told: str | bytes, server: str) -> BodyT:
    """Pure: JSON text as one of the shapes. `server`: how messages name it.

    Raises:
        RemoteRefused: it is an error object.
        RemoteAnswerBroken: it is not JSON, or not of this shape.
    """
    wire = read_shape(shape, told, server)
    if wire.error:
        raise refusal_inside(server, {"error": wire.error})
    return wire


def read_shape(shape: type[WireT], told: str | bytes, server: str) -> WireT:
    """Pure: as `read_wire`, of a server that tells errors by its status alone.

    Raises:
        RemoteAnswerBroken: it is not JSON, or not of this shape.
    """
    try:
        return shape.model_validate_json(told)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        detail = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise RemoteAnswerBroken(f"The server at {server} sent what cannot be read: {detail}") from None
