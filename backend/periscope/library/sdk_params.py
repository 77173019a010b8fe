"""What the official SDK's `chat.completions.create` takes, as the body that it would send. Pure; needs the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from periscope.core import JSONObject
from periscope.errors import InvalidRequest
from periscope.library.plain import plain

#: Arguments of the SDK that are about HTTP.
_OF_HTTP = ("extra_headers", "extra_query")


@dataclass(frozen=True, slots=True)
class SDKCall:
    """One call of `create`.

    Attributes:
        timeout_s: None = as long as it takes.
        unused: arguments that have no effect without HTTP.
    """

    body: JSONObject
    timeout_s: float | None
    unused: tuple[str, ...]


def sdk_call(params: Mapping[str, Any], *, is_stream: bool) -> SDKCall:
    """The body, with `extra_body` laid over it; `omit` and `NOT_GIVEN` are left out.

    Raises:
        InvalidRequest: `stream` is another than that of the method, `timeout` or `extra_body` is of a wrong type, or
            something is nested too deeply.
    """
    given = {name: value for name, value in params.items() if not _is_left_out(value)}
    timeout_s = _seconds(given.pop("timeout", None))
    unused = tuple(name for name in _OF_HTTP if given.pop(name, None))
    extra = given.pop("extra_body", None) or {}
    if not isinstance(extra, Mapping):
        raise InvalidRequest("`extra_body` must be a mapping.", param="extra_body")
    body: JSONObject = plain({**given, **extra})
    if body.setdefault("stream", is_stream) not in (None, is_stream):
        method = "chat_completion" if is_stream else "chat_completion_stream"
        raise InvalidRequest(f"`stream` is decided by the method: call `{method}`, or leave it out.", param="stream")
    body["stream"] = is_stream
    return SDKCall(body, timeout_s, unused)


def _is_left_out(value: Any) -> bool:
    from openai import NotGiven, Omit

    return isinstance(value, (NotGiven, Omit))


def _seconds(timeout: Any) -> float | None:
    """A number, None, or the read timeout of one of httpx."""
    told = getattr(timeout, "read", timeout)
    if told is not None and not isinstance(told, (int, float)):
        raise InvalidRequest("`timeout` must be a number of seconds.", param="timeout")
    return told
