"""A growing conversation: every turn sends all earlier ones, so only its new tokens should be prefilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.http import Answer, chat
from periscope.bench.pictures import picture_url
from periscope.bench.words import words

if TYPE_CHECKING:
    from periscope.core import JSONObject
    from periscope.remote import OpenAIClient


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one round; `number` counts from 1.

    Attributes:
        num_prefilled_tokens: prompt tokens that were not taken from the prompt cache.
        caption_ms: the part of `ttft_s` spent on captions; None without pictures.
    """

    round: int
    number: int
    ttft_s: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_prefilled_tokens: int
    num_tokens: int
    caption_ms: int | None


async def converse(
    client: OpenAIClient, *, number: int, turns: int, num_words: int, max_tokens: int, has_pictures: bool
) -> list[Turn]:
    """Hold one conversation, that of round `number`, and return its turns."""
    history: list[JSONObject] = []
    measured: list[Turn] = []
    for turn in range(1, turns + 1):
        history.append(_question(words(num_words, "turn", number, turn), (number, turn) if has_pictures else None))
        answer = await chat(client, history, max_tokens)
        history.append({"role": "assistant", "content": answer.text})
        measured.append(_turn(answer, (number, turn)))
    return measured


def _turn(answer: Answer, place: tuple[int, int]) -> Turn:
    return Turn(
        round=place[0],
        number=place[1],
        ttft_s=answer.row.first_s,
        num_prompt_tokens=answer.num_prompt_tokens,
        num_cached_tokens=answer.num_cached_tokens,
        num_prefilled_tokens=answer.num_prompt_tokens - answer.num_cached_tokens,
        num_tokens=answer.row.num_tokens,
        caption_ms=answer.caption_ms,
    )


def _question(text: str, picture: tuple[int, int] | None) -> JSONObject:
    parts: list[JSONObject] = [{"type": "text", "text": text}]
    if picture is not None:
        parts.append({"type": "image_url", "image_url": {"url": picture_url("conversation", *picture)}})
    return {"role": "user", "content": parts}
