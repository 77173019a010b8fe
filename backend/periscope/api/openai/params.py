"""The parameters of generation, wire to core, that chat completions and completions share. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from periscope.api.wording import kind_of
from periscope.core import GenerationParams
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import GenerationWire
    from periscope.core import JSONObject

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")


def decode_params(
    wire: GenerationWire, *, max_tokens: int | None, logprobs: bool, top_logprobs: int
) -> GenerationParams:
    """The sampling parameters of a request.

    Raises:
        InvalidRequest: one is out of bounds, or they contradict each other.
    """
    params = GenerationParams(
        max_tokens=max_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        min_p=wire.min_p,
        repetition_penalty=wire.repetition_penalty,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        seed=wire.seed,
        stop=tuple(wire.stop or ()),
        stop_token_ids=tuple(wire.stop_token_ids or ()),
        min_tokens=wire.min_tokens or 0,
        ignore_eos=bool(wire.ignore_eos),
        logit_bias=_logit_bias(wire.logit_bias or {}),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
    )
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise InvalidRequest(
            f"`min_tokens` is {params.min_tokens}, but the answer may have {params.max_tokens} tokens at most.",
            param="min_tokens",
        )
    return params


def _logit_bias(wire: JSONObject) -> tuple[tuple[int, float], ...]:
    for key, bias in wire.items():
        if not _TOKEN_ID.fullmatch(key) or isinstance(bias, bool) or not isinstance(bias, (int, float)):
            raise InvalidRequest(
                f'`logit_bias` must hold numbers under token ids, such as {{"1234": -5}}, got {kind_of(bias)} under '
                f"{kind_of(key)}.",
                param="logit_bias",
            )
    return tuple((int(key), bias) for key, bias in wire.items())


def wants_usage(wire: GenerationWire) -> bool:
    """Whether the client asked for the usage chunk of a stream.

    Raises:
        InvalidRequest: there are options of a stream, and there is no stream.
    """
    if wire.stream_options is not None and not wire.stream:
        raise InvalidRequest("`stream_options` is only allowed when `stream` is true.", param="stream_options")
    return bool(wire.stream_options and wire.stream_options.include_usage)
