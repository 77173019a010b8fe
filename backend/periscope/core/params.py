"""Sampling params of a request, and their bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from periscope.errors import InvalidRequest

#: name -> (lowest, highest); None = no bound on that side.
_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "max_tokens": (1, 2**31 - 1),
    "min_tokens": (0, 2**31 - 1),
    "thinking_budget": (0, 2**31 - 1),
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 2**31 - 1),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "seed": (-(2**63), 2**64 - 1),
    "top_logprobs": (0, 20),
}
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1024
MAX_STOP_TOKEN_IDS = 128
MAX_LOGIT_BIAS_ENTRIES = 1024
MAX_LOGIT_BIAS = 100.0
_MAX_SHOWN_DIGITS = 32


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """Sampling params of one request. `None` = not asked for: the model's default, else the neutral value.

    Attributes:
        max_tokens: completion limit; None = what the context leaves.
        temperature: 0 = greedy.
        top_p, min_p: probabilities; 1 and 0 switch them off.
        top_k: 0 switches it off.
        repetition_penalty: 1 = off; counts prompt and completion (the Hugging Face meaning).
        frequency_penalty, presence_penalty: 0 = off; count the completion only (the OpenAI meaning).
        seed: the same seed, prompt and params give the same tokens, alone or in a batch.
        stop: strings matched on the text of the answer, never on reasoning or calls where these are recognised;
            never part of the output.
        stop_token_ids: tokens that end the completion besides the model's own end tokens, and like these are never part
            of the text.
        min_tokens: no end token and none of `stop_token_ids` is generated before so many tokens, unless a grammar
            allows nothing else. Stop strings and calls end a completion earlier.
        ignore_eos: as `min_tokens`, for the model's own end tokens and up to the limit.
        thinking_budget: tokens that the model's thinking may take; then it is ended, and the answer goes on. 0 = none.
            Without effect on models that do not mark their thinking.
        logit_bias: (token id, value added to its logit) pairs, -100 to 100; each id at most once.
        logprobs: report the log-probability of each token of the completion, under the model's own distribution
            (before penalties, bias, grammar and temperature).
        top_logprobs: report that many likeliest alternatives of each token too; needs `logprobs`.
        prompt_logprobs: report the same for the tokens of the prompt, for which all of it is computed anew; needs
            `logprobs`.

    Raises:
        InvalidRequest: a value is out of bounds or not finite; names the field, its bounds and the value.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    thinking_budget: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            if (value := getattr(self, name)) is not None:
                check_bounds(name, value, low, high)
        self._check_lengths()
        for token_id, bias in self.logit_bias:
            check_bounds("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
            check_bounds("logit_bias", token_id, 0, None)
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs: true`.", param="top_logprobs")
        if self.prompt_logprobs and not self.logprobs:
            raise InvalidRequest("`prompt_logprobs` needs `logprobs`.", param="prompt_logprobs")

    def _check_lengths(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(
                f"`stop` takes at most {MAX_STOP_STRINGS} strings, got {len(self.stop)}.", param="stop"
            )
        if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in self.stop):
            raise InvalidRequest(f"Each `stop` string needs 1 to {MAX_STOP_LENGTH} characters.", param="stop")
        if len(self.stop_token_ids) > MAX_STOP_TOKEN_IDS:
            raise InvalidRequest(
                f"`stop_token_ids` takes at most {MAX_STOP_TOKEN_IDS} ids, got {len(self.stop_token_ids)}.",
                param="stop_token_ids",
            )
        if len(self.logit_bias) > MAX_LOGIT_BIAS_ENTRIES:
            raise InvalidRequest(
                f"`logit_bias` takes at most {MAX_LOGIT_BIAS_ENTRIES} tokens, got {len(self.logit_bias)}.",
                param="logit_bias",
            )

    def over(self, defaults: GenerationParams) -> GenerationParams:
        """Pure: these params, with what was not asked for taken from `defaults`."""
        left_open = [name for name in _NAMES if getattr(self, name) in (None, ())]
        taken = {name: value for name in left_open if (value := getattr(defaults, name)) not in (None, ())}
        return replace(self, **taken) if taken else self


_NAMES = tuple(each.name for each in fields(GenerationParams))


def check_bounds(name: str, value: float | None, low: float | None, high: float | None) -> None:
    """Pure; None is within all bounds.

    Raises:
        InvalidRequest: it is outside or not finite.
    """
    if value is None:
        return
    finite = not isinstance(value, float) or math.isfinite(value)
    if finite and (low is None or value >= low) and (high is None or value <= high):
        return
    span = f"between {low} and {high}" if high is not None else f"at least {low}"
    shown = str(value)
    shown = shown if len(shown) <= _MAX_SHOWN_DIGITS else f"{shown[:_MAX_SHOWN_DIGITS]}..."
    raise InvalidRequest(f"`{name}` must be {span}, got {shown}.", param=name)
