"""Texts that complete strings under a `pattern` which matches anywhere in them, such as `foo`.

The search for a completion (`closing`) writes such a string letter by letter, and no letter brings it nearer to its
end. So a short match of each pattern is found once, when the schema is compiled, and tried as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

from llguidance import LLMatcher, LLTokenizer

from periscope.core import JSONObject
from periscope.engine.structured.closing import MAX_COMPLETION_TOKENS, Closing, ClosingTokens, Thoughts

#: Patterns of one schema for which a match is searched: some milliseconds each.
_MAX_PATTERNS: Final = 16


def fragments_of(schemas: Iterable[JSONObject], vocabulary: LLTokenizer, tokens: ClosingTokens) -> tuple[bytes, ...]:
    """Short matches of the patterns in the schemas, written as inside a JSON string.

    Args:
        tokens: of the same vocabulary.
    """
    patterns = dict.fromkeys(pattern for schema in schemas for pattern in _patterns_in(schema))
    matches = (_match_of(pattern, vocabulary, tokens) for pattern in list(patterns)[:_MAX_PATTERNS])
    found = [json.dumps(match)[1:-1].encode() for match in matches if match]
    # A string under several patterns at once may need all of them.
    return (*found, b"".join(found)) if len(found) > 1 else tuple(found)


def _match_of(pattern: str, vocabulary: LLTokenizer, tokens: ClosingTokens) -> str | None:
    """A short text that this regular expression matches as a whole; None if llguidance does not take it."""
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_regex(pattern.removesuffix("$")), log_level=0)
    if matcher.is_error():
        return None
    token_ids = Closing(tokens, Thoughts()).shortest(matcher, MAX_COMPLETION_TOKENS)
    return None if token_ids is None else vocabulary.decode_bytes(token_ids).decode(errors="replace")


def _patterns_in(node: object) -> Iterator[str]:
    """Patterns that match anywhere, in order. A key `pattern` that is no keyword gives a fragment that is never used.

    Those that match from the start are no trouble: each character that they allow brings the string nearer to its end.
    """
    if isinstance(node, dict):
        pattern = node.get("pattern")
        if isinstance(pattern, str) and not pattern.startswith("^"):
            yield pattern
        for below in node.values():
            yield from _patterns_in(below)
    elif isinstance(node, list):
        for below in node:
            yield from _patterns_in(below)
