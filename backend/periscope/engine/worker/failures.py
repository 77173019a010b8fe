"""What becomes of an exception that the model or a request's own code raised, on the way to whoever is told of it."""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress

from periscope.errors import GenerationFailed, PeriscopeError

logger = logging.getLogger(__name__)


def let_go(error: BaseException | None) -> None:
    """Clear the frames of an error's traceback: they reference the model, and would live as long as the error.

    The callers of these frames are cleared too if they have returned. Running frames are left alone.
    """
    while error is not None:
        step = error.__traceback__
        while step is not None:  # every step: an error that came out of a generator has no callers at its first frame
            for frame, _ in traceback.walk_stack(step.tb_frame):
                with suppress(RuntimeError):  # the frame is running
                    frame.clear()
            step = step.tb_next
        error = error.__cause__ or error.__context__


def as_generation_failure(error: BaseException) -> PeriscopeError:
    """The error that a client gets for an exception that its request met.

    A `PeriscopeError` is returned as it is. Of any other exception the client learns the type only; the log has it all.
    """
    if isinstance(error, PeriscopeError):
        let_go(error)
        return error
    logger.error("generation failed", exc_info=error)
    let_go(error)
    return GenerationFailed(f"The model failed while generating ({type(error).__name__}); the server log has details.")
