"""The types of answers, by name alone: a route says of which type its answer is, and imports none of them for it."""

from __future__ import annotations

from typing import Final


class Places:
    """The places of a module's types, as `name_of` gives them. The document looks them up, and fails for a wrong one.

    The 80 types take 0.5 MiB, and few servers are ever asked for their OpenAPI document.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> str:
        return f"{self._module}:{name}"


shapes: Final = Places("periscope.api.openapi.shapes")
own_shapes: Final = Places("periscope.api.openapi.own_shapes")
discovery_shapes: Final = Places("periscope.api.openapi.discovery_shapes")
