"""What all sections of models.yaml are made of: the base class, fields with units, bounds and patterns."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
DAY_S = 86_400.0

NAME = r"^[\w.:@+-]+(/[\w.:@+-]+)*$"
HUB_ID = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*$"
HOST = r"^[^\s/]+$"
ALLOWED_HOST = r"^(\*|[^\s/*]+)$"
FETCH_HOST = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@*]+)(:[0-9]{1,5})?$"
API_KEY = r"^[!-~]+$"
KEY_NAME = r"^[A-Za-z0-9][\w.@-]*$"
KEY_HASH = r"^sha256:[0-9a-f]{64}$"
BASE_URL = r"^https?://[^\s/?#@]+[^\s?#@]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
MCP_NAME = r"^[A-Za-z0-9_-]+$"
MCP_URL = r"^https?://[^\s/?#@]+(?:[/?][^\s#]*)?$"

#: What to tell a person whose text does not match one of the patterns above.
PATTERN_MEANINGS = {
    NAME: "should be made of letters, digits and . _ - : @ + with single slashes between",
    HUB_ID: "should be a Hugging Face repository with its owner, such as mlx-community/Qwen3-4B-Instruct-2507-4bit",
    HOST: "should be a host name or an IP address",
    ALLOWED_HOST: "should be a host name or an IP address, or * for any",
    FETCH_HOST: "should be a host such as nas.local, 192.168.1.5:8080 or [fd00::5]",
    API_KEY: "should be printable ASCII without spaces",
    KEY_NAME: "should be made of letters, digits and . _ - @, such as laptop",
    KEY_HASH: "should be sha256: and 64 hexadecimal digits, as `periscope key new` prints it",
    BASE_URL: "should be a URL such as http://127.0.0.1:8000/v1, without user name, query or fragment",
    MCP_NAME: "should be made of letters, digits, _ and -, such as docs",
    MCP_URL: "should be a URL such as https://tools.example/mcp, without user name and fragment",
    ENV_NAME: "should be the name of an environment variable, such as VLM_API_KEY, and not the key itself",
}


def setting(default: Any, description: str, unit: str | None = None, **more: Any) -> Any:
    """A field of the file; `more` are pydantic's bounds and `alias`."""
    return Field(default=default, description=description, json_schema_extra={"unit": unit} if unit else None, **more)


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Pure: the fields by the key that stands in the file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


class Section(BaseModel):
    """A mapping of the file. A known key with nothing behind it (or `null`) is left at its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = fields_of(cls)
        return {key: value for key, value in data.items() if value is not None or key not in known}
