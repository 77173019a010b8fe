"""Broken JSON bodies, drawn by Hypothesis from valid ones: other types, sizes, nesting, numbers, keys and bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import strategies as st


@dataclass(frozen=True)
class Raw:
    """JSON text that no Python value gives, such as a number of 5,000 digits, or text that is no JSON at all."""

    text: str


#: A container, and the key or index of one of its values.
Place: TypeAlias = "tuple[Any, Any]"
Mutation: TypeAlias = Callable[[st.DrawFn, Place], None]

_NUMBERS = (
    *("0", "-0", "1", "-1", "2", "0.5", "10.0", "2147483648", "9223372036854775808", "-9223372036854775809"),
    *("1e308", "1e999", "-1e999", "5e-324", "1" * 400, "9" * 5000, "NaN", "Infinity", "-Infinity", "01", "0x10"),
)
_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\ud800",
        "\udfff\ud800",
        "\ufeff",
        "\u202e",
        "e\u0301" * 50,
        "💥" * 300,
        "a" * 70_000,
        "\n" * 5000,
    ),
    *("data:,", "data:image/png;base64,", "data:image/png;base64,AAAA", "data:text/plain;base64,====", "data:x;y,%"),
    *("http://127.0.0.1:1/a.png", "file:///etc/passwd", "../..", "null", "true", "{}", "1", "auto", "required"),
    *("<|im_end|>", "<image>", "<tool_call>{", "</think>", "[Image 1]", "(a*)*", "root ::= root", "%llguidance {}"),
)
_CONTAINERS = ("[]", "{}", "[[]]", "[{}]", "[null]", '{"":null}', '{"type":null}', '{"a":1,"a":2}', '{"__proto__":{}}')
_REFERENCES = ('{"$ref":"#"}', '{"$ref":"#/$defs/none"}', '{"$ref":"http://127.0.0.1:1/"}', '{"allOf":[{"$ref":"#"}]}')
_BROKEN = ("", "nul", "'a'", "[1,]", '{"a":}', '"\\x"', '"\\ud800"', '"\t"', "[" * 2000)
_NESTS = (("[", "]"), ('{"a":', "}"), ('{"type":"array","items":', "}"), ('{"anyOf":[', "]}"))
#: Fields of requests that a body may not have yet.
_FIELDS = (
    *(
        "model",
        "messages",
        "prompt",
        "input",
        "content",
        "stream",
        "n",
        "max_tokens",
        "min_tokens",
        "ignore_eos",
        "stop",
    ),
    *(
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "tools",
        "tool_choice",
        "response_format",
        "guided_json",
        "guided_regex",
    ),
    *("guided_choice", "guided_grammar", "grammar", "structured_outputs", "reasoning_effort", "thinking", "system"),
    *("chat_template_kwargs", "images", "files", "audio", "type", "id", "role", "$ref", "pattern", "enum", "const"),
)
_MAX_MUTATIONS = 3


def _nested(nest: tuple[str, str], depth: int) -> str:
    return nest[0] * depth + "1" + nest[1] * depth


_ODD = st.one_of(
    st.sampled_from(("null", "true", "false")),
    st.sampled_from(_NUMBERS),
    st.sampled_from([json.dumps(text) for text in _TEXTS]),
    st.text(max_size=30).map(json.dumps),
    st.integers().map(str),
    st.sampled_from(_CONTAINERS + _REFERENCES),
    st.builds(_nested, st.sampled_from(_NESTS), st.sampled_from((2, 20, 100, 1000, 5000))),
    st.sampled_from(_BROKEN),
).map(Raw)


@st.composite
def broken_bodies(draw: st.DrawFn, seeds: Sequence[Any]) -> bytes:
    """One of the bodies with up to `_MAX_MUTATIONS` changes, and now and then with a fault in its bytes."""
    holder = [copy.deepcopy(draw(st.sampled_from(seeds)))]
    for _ in range(draw(st.integers(1, _MAX_MUTATIONS))):
        place = draw(st.sampled_from(list(_places(holder))))
        draw(st.sampled_from(_MUTATIONS))(draw, place)
    body = _dumped(holder[0] if holder else None).encode("utf-8", "surrogatepass")
    return draw(_bytes_of(body)) if draw(st.integers(0, 9)) == 0 else body


def _places(holder: list[Any]) -> Iterator[Place]:
    """Every place of a value. The outermost value is more than one of them, so that it is not always spared."""
    pending: list[Any] = [holder]
    while pending:
        container = pending.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            yield container, key
            if isinstance(container[key], (dict, list)):
                pending.append(container[key])


def _replace(draw: st.DrawFn, place: Place) -> None:
    container, key = place
    container[key] = draw(_ODD)


def _delete(_: st.DrawFn, place: Place) -> None:
    container, key = place
    container[key] = Raw("null") if isinstance(container, list) and len(container) == 1 else container[key]
    if isinstance(container, dict) or len(container) > 1:
        del container[key]


def _wrap(draw: st.DrawFn, place: Place) -> None:
    container, key = place
    container[key] = draw(st.sampled_from(([container[key]], {"type": container[key]}, {"a": container[key]})))


def _repeat(draw: st.DrawFn, place: Place) -> None:
    """A list with its value many times; the members of an object twice, the second time with another value."""
    container, key = place
    times = draw(st.sampled_from((2, 17, 300)))
    if isinstance(container, list) and len(container) < 50 and len(_dumped(container[key])) * times < 1_000_000:
        container[key : key + 1] = [container[key]] * times
    elif isinstance(container, dict):
        container[key] = Raw(f"{_dumped(container[key])},{json.dumps(key)}:{draw(_ODD).text}")


def _rename(draw: st.DrawFn, place: Place) -> None:
    container, key = place
    if isinstance(container, dict):
        container[draw(st.sampled_from(_FIELDS) | st.text(max_size=8))] = container.pop(key)


def _add(draw: st.DrawFn, place: Place) -> None:
    container, key = place
    target = container[key] if isinstance(container[key], dict) else container
    if isinstance(target, dict):
        target[draw(st.sampled_from(_FIELDS) | st.text(max_size=8))] = draw(_ODD)
    else:
        target.append(draw(_ODD))


_MUTATIONS: tuple[Mutation, ...] = (_replace, _replace, _replace, _delete, _wrap, _repeat, _rename, _add)


def _dumped(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_dumped(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumped, value)) + "]"
    return json.dumps(value)


@st.composite
def _bytes_of(draw: st.DrawFn, body: bytes) -> bytes:
    """The body cut off, with a byte too many or another one, or in another encoding."""
    at = draw(st.integers(0, len(body)))
    byte = bytes([draw(st.integers(0, 255))])
    text = body.decode("utf-8", "surrogatepass")
    return draw(
        st.sampled_from(
            (
                body[:at],
                body[:at] + byte + body[at:],
                body[:at] + byte + body[at + 1 :],
                b"\xef\xbb\xbf" + body,
                text.encode("utf-16", "surrogatepass"),
                body + body,
            )
        )
    )
