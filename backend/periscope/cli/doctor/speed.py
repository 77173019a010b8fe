"""A short bench: the embedded text model through the engine, so that two sessions of one machine can be compared."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from periscope.cli.doctor.finding import Finding, Level
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.engine.generation import GenerationStats

#: Plain token ids, so that every version of the model reads the same prompt.
_PROMPT_TOKENS: Final = 1024
_DECODED_TOKENS: Final = 128


def look_at_speed() -> Finding:
    """Tokens per second of reading a prompt and of decoding. Blocks for some seconds."""
    try:
        stats = asyncio.run(_measure())
    except PeriscopeError as error:
        return Finding("speed", Level.FAILURE, error.message, "`periscope ask Hello` shows whether the model answers.")
    prefill = stats.num_prompt_tokens / stats.time_to_first_token_s
    decode_s = stats.duration_s - stats.time_to_first_token_s
    decode = (stats.num_completion_tokens - 1) / decode_s if decode_s > 0 else 0.0
    said = f"{prefill:,.0f} tokens/s of prompt, {decode:,.0f} tokens/s decoded, with the embedded model"
    return Finding("speed", Level.OK, f"{said}; the agent and a terminal of one machine should differ little")


async def _measure() -> GenerationStats:
    from periscope import GenerationParams, InferenceEngine
    from periscope.demo import EMBEDDED_MODELS

    async with await InferenceEngine.load(str(EMBEDDED_MODELS["embedded:text"])) as engine:
        prompt = [32 + index % 64 for index in range(_PROMPT_TOKENS)]
        await engine.generate(
            prompt[::-1], GenerationParams(max_tokens=2, temperature=0.0)
        )  # compiles what Metal needs
        params = GenerationParams(max_tokens=_DECODED_TOKENS, temperature=1.0, seed=1)
        return (await engine.generate(prompt, params)).stats
