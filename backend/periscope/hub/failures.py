"""What goes wrong between the hub and this disk, in one sentence with the way out. Pure."""

from __future__ import annotations

import errno

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # httpx's with huggingface_hub 1.x, httpx2's with 2.x
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from periscope.errors import HubError, ModelNotFound, PeriscopeError

#: Statuses besides 5xx after which the same request may succeed: timeout, too many requests.
_PASSING_STATUSES = (408, 429)
_REFUSING_STATUSES = (401, 403)
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"

#: The library's error, ours, and what is told; the first that fits (a gated repository is also one "not found").
_SENTENCES: tuple[tuple[type[Exception], type[PeriscopeError], str], ...] = (
    (HFValidationError, ModelNotFound, "{hub_id} is no hub id; one looks like mlx-community/Name."),
    (GatedRepoError, HubError, f"{{hub_id}} is gated. Accept its terms on its page of the hub, then {_LOG_IN}."),
    (
        RepositoryNotFoundError,
        ModelNotFound,
        f"The hub has no model {{hub_id}}, or it is private. Check the name; if it is private, {_LOG_IN}.",
    ),
    (RevisionNotFoundError, ModelNotFound, "{hub_id} has no revision {revision}. Leave it out for `main`."),
    (OfflineModeIsEnabled, HubError, "Nothing can be fetched while HF_HUB_OFFLINE is set. Unset it and try again."),
)


def is_passing(error: Exception) -> bool:
    """Pure: whether trying again in a moment may help."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status in _PASSING_STATUSES or status >= 500
    return isinstance(error, (HTTPError, ConnectionError, TimeoutError)) and not isinstance(error, OfflineModeIsEnabled)


def told(error: Exception, hub_id: str, revision: str | None) -> PeriscopeError:
    """Pure: the error as one of ours.

    Raises:
        Exception: `error` itself, when it is no failure of the hub, the network or the disk.
    """
    if isinstance(error, PeriscopeError):
        return error
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library looked on this disk because the hub had failed
    for theirs, ours, sentence in _SENTENCES:
        if isinstance(error, theirs):
            return ours(sentence.format(hub_id=hub_id, revision=revision))
    if isinstance(error, HfHubHTTPError):
        return _of_status(error.response.status_code, hub_id)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError("The disk is full. Free some space and try again; what has arrived is kept.")
    if isinstance(error, (HTTPError, OSError)):
        kind = type(error).__name__
        return HubError(
            f"The hub cannot be reached ({kind}). Check the network and try again; what has arrived is kept."
        )
    raise error


def _of_status(status: int, hub_id: str) -> HubError:
    if status in _REFUSING_STATUSES:
        return HubError(f"The hub refuses {hub_id} to you. Check your token, or {_LOG_IN}.")
    return HubError(f"The hub answers with status {status}. Try again later; what has arrived is kept.")
