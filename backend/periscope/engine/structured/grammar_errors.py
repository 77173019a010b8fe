"""Translates llguidance's errors for clients. Pure.

llguidance's messages are about its own options, rules and regexes, which mean nothing to the author of a schema.
"""

from __future__ import annotations

import re

NOTHING_FITS = "nothing satisfies it"
_TOO_COMPLEX = "it is too complex; make it smaller, or its patterns and choices simpler"
_UNKNOWN = "it asks for what cannot be checked while the model writes; say it with simpler keywords"

_GRAMMAR = re.compile(r"\n +\d+ \|")
_PLACES = re.compile(r"(?:\bat )?\b\d+\(\d+\):? ?")
_MAX_TOLD = 300
_NOTHING = r"[Uu]nsatisfiable|Regex is empty|NoExtensionBias"
_TOO_MUCH = r"items; max|intersection stack|too (?:large|big|many|complex|deep)|limit|[Ff]uel|Unable to determine"
#: (pattern of a message, explanation). The first match wins. Groups are parts of the client's schema.
_EXPLANATIONS: tuple[tuple[str, str], ...] = (
    (
        r"oneOf constraints are not supported",
        (
            "`oneOf` is enforced where no value can fit two of its branches; give each its own `type`, or a property "
            "with a `const` of its own, or use `anyOf`"
        ),
    ),
    (r"(min\w+ \(\d+\) is greater than max\w+ \(\d+\))", NOTHING_FITS + r": \1"),
    (_NOTHING, NOTHING_FITS),
    (r"Too many items", f"{NOTHING_FITS}, because it has to hold itself, or {_TOO_COMPLEX}"),
    (
        r"look-?around|look-ahead|look-behind|backreference|WordUnicode|WordAscii",
        "look-around, word boundaries and back-references cannot stand in a `pattern`",
    ),
    (r"regex parse error[\s\S]*error: (.+)", r"a `pattern` is no regular expression: \1"),
    (r"regex parse error|Regex error|regex error", "a `pattern` is no regular expression that can be enforced"),
    (r"'multipleOf'|invalid multiple of", "`multipleOf` must be greater than 0"),
    (r"regex for (?:integer|float) range", "a bound of its numbers has too many digits; round it"),
    (_TOO_MUCH, _TOO_COMPLEX),
)


def explained_grammar(message: str) -> str:
    """The reason why a client's own grammar cannot be enforced, as the end of a sentence without its full stop.

    Its author knows rules and regular expressions, so llguidance's words are passed on, without the places, which are
    those in the grammar around it.
    """
    message = _GRAMMAR.split(message, maxsplit=1)[0]
    if re.search(_NOTHING, message):
        return NOTHING_FITS
    if re.search(_TOO_MUCH, message):
        return _TOO_COMPLEX
    return " ".join(_PLACES.sub("", message).split())[:_MAX_TOLD].rstrip(".")


def explained(message: str) -> str:
    """The reason why a schema cannot be enforced, as the end of a sentence without its full stop."""
    message = _GRAMMAR.split(message, maxsplit=1)[0]  # the grammar follows, which contains text of the client
    for pattern, explanation in _EXPLANATIONS:
        found = re.search(pattern, message)
        if found is not None:
            return found.expand(explanation)
    return _UNKNOWN
