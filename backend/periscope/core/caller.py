"""Whose request is being served, for the status of requests: set by `api/`, read by `serving/`."""

from __future__ import annotations

from contextvars import ContextVar

#: The name of the API key that the current request came with; None where no key is asked for. A context variable,
#: since it belongs to the task that serves the request and to what that task starts, in whatever dialect it came.
KEY_NAME: ContextVar[str | None] = ContextVar("key_name", default=None)
