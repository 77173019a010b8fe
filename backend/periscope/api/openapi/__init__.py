"""The server's own OpenAPI document: `documented` beside each route, `build.py` makes it of all of them."""

from periscope.api.openapi.declare import Query, documented

__all__ = ["Query", "documented"]
