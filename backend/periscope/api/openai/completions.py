"""Completions, wire to core: the request of OpenAI's older API, which goes on with texts. Pure.

Source: OpenAI's reference of `POST /v1/completions`, and vLLM's `entrypoints/openai/completion/protocol.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from periscope.api.bounds import refuse_too_many
from periscope.api.errors import UnsupportedParameter
from periscope.api.fields import refuse_fields
from periscope.api.openai.fields import COMPLETION_FIELDS
from periscope.api.openai.params import decode_params, wants_usage
from periscope.api.openai.prompts import decode_prompts
from periscope.api.openai.response_format import decode_response_format
from periscope.api.openai.schema import CompletionWire
from periscope.api.openai.unsupported import unused_fields
from periscope.api.validation import validate
from periscope.core import Echo, GenerationParams, GenerationRequest, OutputSpec
from periscope.errors import InvalidRequest

#: OpenAI's.
_DEFAULT_MAX_TOKENS: Final = 16
_MAX_LOGPROBS: Final = 5
#: What clients of vLLM and llama.cpp send as `max_tokens` for no limit.
_NO_LIMIT: Final = -1


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A decoded request, and the form of its answer.

    Attributes:
        has_usage: the client asked for the usage chunk of a stream.
        unused: fields that were accepted and are not used.
    """

    request: GenerationRequest
    is_stream: bool
    has_usage: bool
    unused: tuple[str, ...]


def decode(body: Any, request_id: str) -> CompletionCall:
    """A parsed body as a request.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    refuse_too_many(body)
    wire = validate(CompletionWire, body)
    refuse_fields(wire.model_extra, COMPLETION_FIELDS)
    has_usage, echo = wants_usage(wire), _echo(wire)
    suffix = wire.suffix or None
    num_choices = 1 if wire.n is None else wire.n
    _check_best_of(wire, num_choices)
    request = GenerationRequest(
        id=request_id,
        model=wire.model or "",
        messages=(),
        prompts=decode_prompts(wire.prompt, suffix, adds_special_tokens=wire.add_special_tokens is not False),
        params=_params(wire, echo),
        output=OutputSpec(response_format=decode_response_format(wire)),
        num_choices=num_choices,
        echo=echo,
    )
    return CompletionCall(request, bool(wire.stream), has_usage, tuple(unused_fields(wire, COMPLETION_FIELDS)))


def _echo(wire: CompletionWire) -> Echo:
    """Whether the prompt comes back; alone if no token is wanted.

    Raises:
        InvalidRequest: nothing would come back, or what would come back is not one text.
    """
    if not wire.echo:
        if wire.max_tokens == 0:
            raise InvalidRequest(
                "`max_tokens` is 0 without `echo`: there would be no answer. Ask for at least 1 token.",
                param="max_tokens",
            )
        return Echo.NONE
    if wire.suffix:
        raise InvalidRequest("`echo` cannot stand beside `suffix`: leave one out.", param="echo")
    return Echo.ALONE if wire.max_tokens == 0 else Echo.PROMPT


def _check_best_of(wire: CompletionWire, num_choices: int) -> None:
    if wire.best_of is None or wire.best_of == num_choices:
        return
    if wire.best_of < num_choices:
        raise InvalidRequest(
            f"`best_of` is {wire.best_of}, but `n` is {num_choices}: it must be at least as many.", param="best_of"
        )
    raise UnsupportedParameter(
        f"`best_of` is {wire.best_of}, more than `n`: this server does not choose between completions. Leave it out, "
        f"or ask for `n: {wire.best_of}` and choose by `logprobs`.",
        param="best_of",
    )


def _params(wire: CompletionWire, echo: Echo) -> GenerationParams:
    if wire.logprobs is not None and not 0 <= wire.logprobs <= _MAX_LOGPROBS:
        raise InvalidRequest(
            f"`logprobs` must be between 0 and {_MAX_LOGPROBS}, got {wire.logprobs}.", param="logprobs"
        )
    max_tokens = _DEFAULT_MAX_TOKENS if wire.max_tokens is None else wire.max_tokens
    params = decode_params(
        wire,
        max_tokens=None if max_tokens == _NO_LIMIT else max(max_tokens, 1) if echo is Echo.ALONE else max_tokens,
        logprobs=wire.logprobs is not None,
        top_logprobs=wire.logprobs or 0,
    )
    return replace(params, prompt_logprobs=params.logprobs and echo is not Echo.NONE)
