"""Log-probabilities in the shape of OpenAI's older API: four lists, one entry per token."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.api.replies import json_logprob

if TYPE_CHECKING:
    from periscope.core import JSONObject, TokenLogprob, TokenText


class LogprobsEncoder:
    """Owns how far the tokens of one choice have come in its text, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def encode(self, entries: Sequence[TokenLogprob]) -> JSONObject | None:
        """The next tokens; None if there are none.

        `text_offset` is where a token begins in the text of the choice; one that begins within a character has the
        offset of that character. `top_logprobs` always holds the token itself, besides the likeliest ones, so it may
        have one more than were asked for.
        """
        if not entries:
            return None
        return {
            "tokens": [_name(entry.token) for entry in entries],
            "token_logprobs": [json_logprob(entry.logprob) for entry in entries],
            "top_logprobs": [_top(entry) for entry in entries],
            "text_offset": [self._passed(entry.token) for entry in entries],
        }

    def _passed(self, token: TokenText) -> int:
        begin = self._offset
        self._offset += len(self._decoder.decode(token.utf8))
        return begin


def _top(entry: TokenLogprob) -> dict[str, float | None] | None:
    """The likeliest tokens, and this one; None for a token of which no probability is known."""
    if entry.logprob is None:
        return None
    told: dict[str, float | None] = {}
    for token, logprob in (*entry.top, (entry.token, entry.logprob)):
        told.setdefault(_name(token), json_logprob(logprob))
    return told


def _name(token: TokenText) -> str:
    r"""The token's text, or its bytes where they are no whole characters, as OpenAI writes them: `bytes:\xc3`."""
    try:
        return token.utf8.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.utf8)
