"""A client's own grammar as a grammar in llguidance's dialect of Lark. Pure.

Source: llguidance's `docs/syntax.md`; GBNF as in llama.cpp's `grammars/README.md`, converted by llguidance.
"""

from __future__ import annotations

import json
import re
from typing import Final

from llguidance.gbnf_to_lark import any_to_lark

from periscope.core import AnswerGrammar
from periscope.errors import InvalidRequest

#: Rules that a grammar may have, at most; each colon counts as one. llguidance 1.9 follows rules that stand for each
#: other by recursion: 2,800 in a row overflow a stack of 8 MiB and end the process.
MAX_RULES: Final = 500
#: A slash ends a regular expression in Lark unless a backslash stands before it. Escaped characters are left alone.
_SLASH: Final = re.compile(r"(\\.)|/", re.DOTALL)
#: An escaped character, whatever it is.
_ESCAPE: Final = re.compile(r"\\.", re.DOTALL)
#: What these classes are in ECMAScript, and so in the `pattern` of a JSON schema. To the compiler they are those of
#: Unicode, of which a year of Arabic or segmented digits would be one. The brackets may stand inside of others.
_ASCII_CLASSES: Final = {
    r"\d": "[0-9]",
    r"\D": "[^0-9]",
    r"\w": "[0-9A-Za-z_]",
    r"\W": "[^0-9A-Za-z_]",
}


def lark_of(grammar: AnswerGrammar, *, unlike: str = "") -> str:
    """The grammar, whose rule `start` is the answer.

    Args:
        unlike: a text with which the answer must not begin, after whitespace, if there is one.

    Raises:
        InvalidRequest: it has too many rules, or is GBNF and has an error; says where. Errors in Lark and in regular
            expressions are found when the grammar is compiled.
    """
    if grammar.choices:
        begun = next((text for text in grammar.choices if unlike and text.lstrip().startswith(unlike)), None)
        if begun is not None:
            raise InvalidRequest(
                f"`{grammar.param}` has a text that begins with `{unlike}`, as this model's calls do. Leave it or the "
                "tools out.",
                param=grammar.param,
            )
        texts = (json.dumps(text, ensure_ascii=False) for text in dict.fromkeys(grammar.choices))
        return f"start: ANSWER\nANSWER: {' | '.join(texts)}"
    if grammar.regex:
        excluded = f" & ~/\\s*{_as_line(re.escape(unlike))}(?s:.*)/" if unlike else ""
        return f"start: ANSWER\nANSWER: /{_as_line(_with_ascii_classes(grammar.regex))}/{excluded}"
    try:
        lark = str(any_to_lark(grammar.grammar))
        if lark.count(":") <= MAX_RULES:
            return lark
        reason = f"it has more than {MAX_RULES} rules"
    except RecursionError:
        reason = "it is nested too deep"
    except Exception as error:  # noqa: BLE001 - the converter raises plain exceptions
        reason = " ".join(str(error).split())
    raise InvalidRequest(
        f"`{grammar.param}` cannot be used as a grammar in GBNF or Lark: {reason}.", param=grammar.param
    )


def _with_ascii_classes(regex: str) -> str:
    return _ESCAPE.sub(lambda found: _ASCII_CLASSES.get(found[0], found[0]), regex)


def _as_line(regex: str) -> str:
    """The expression between two slashes, on one line."""
    line = _SLASH.sub(lambda found: found[1] or r"\/", regex)
    return line.replace("\n", r"\n").replace("\r", r"\r")
