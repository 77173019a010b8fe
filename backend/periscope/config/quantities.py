"""Numbers that people write with a unit: `24GB`, `30m`. Pure; knows nothing of files or settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_BYTE_UNITS = {"B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("IB", 1024))
}
_SECOND_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES_PATTERN = r"^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGTkmgt]?[Ii]?[Bb])?$"
_SECONDS_PATTERN = r"^[0-9]{1,9}(?:\.[0-9]{1,6})?$|^(?: ?[0-9]{1,9}(?:\.[0-9]{1,6})? ?(?:ms|s|m|h|d))+$"
_SECONDS_PIECE = re.compile(r"([0-9.]+) ?(ms|s|m|h|d|$)")


def parse_bytes(text: str) -> int:
    """Pure: `24GB` (powers of 1000) or `24GiB` (powers of 1024) as bytes; no unit means bytes.

    Raises:
        ValueError: with a message that says what is accepted.
    """
    match = re.match(_BYTES_PATTERN, text)
    unit = _BYTE_UNITS.get((match[2] or "B").upper()) if match else None
    if match is None or unit is None:
        raise ValueError('should be a number of bytes, or a text with a unit such as "24GB" or "24GiB"')
    return int(float(match[1]) * unit)


def parse_seconds(text: str) -> float:
    """Pure: `30m`, `90s`, `1h30m`, `250ms` or `7d` as seconds; no unit means seconds.

    Raises:
        ValueError: with a message that says what is accepted.
    """
    if not re.match(_SECONDS_PATTERN, text):
        raise ValueError('should be a number of seconds, or a text with a unit such as "90s", "30m" or "1h30m"')
    return sum(float(number) * _SECOND_UNITS[unit] for number, unit in _SECONDS_PIECE.findall(text))


@dataclass(frozen=True, slots=True)
class Quantity:
    """Annotation for a numeric field that may carry a unit; bounds before it in `Annotated` hold for both."""

    parse: Callable[[str], float]
    pattern: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string", "pattern": self.pattern}]}

    def _read(self, value: object) -> object:
        return self.parse(value) if isinstance(value, str) else value


BYTES = Quantity(parse_bytes, _BYTES_PATTERN)
SECONDS = Quantity(parse_seconds, _SECONDS_PATTERN)
