"""ResponsesSession for programs: over a `Periscope`, with conversations in all shapes that `Periscope.chat` takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from periscope import conversations
from periscope.conversations import Answering, ConversationOptions, ConversationResult, McpServer
from periscope.core import GenerationParams
from periscope.engine import InferenceEngine
from periscope.library.conversation import Conversation, messages_of
from periscope.library.embedded import Periscope
from periscope.serving.generation import LocalGenerator


class ResponsesSession(conversations.ResponsesSession):
    """Owns the connections to MCP servers for as long as its `async with` block runs, and leads conversations.

    Entering waits for the first attempt to connect to every server, side by side. A server that cannot be reached is
    told in the log and in `health`, tried again in the background, and its tools are offered from the next turn on.
    Leaving ends all connections and the processes of stdio servers, also when it is cancelled.

    Args:
        answering: a `Periscope` that runs, or an `InferenceEngine`, which is told that it sees no images. It stays its
            owner's, who closes it.
        servers: each with a name of its own. They need `pip install 'mlx-periscope[mcp]'`.
        functions: Python functions that the model may call, plain ones and coroutines. The name and the docstring are
            what it is told of one, the annotations make the schema of the arguments. It returns a text, a part or a
            tuple of parts (what `picture` gives is shown), or anything that pydantic writes as JSON; what it raises is
            told to the model.
        model: configured name or alias; "" = the default one.
        params: for every turn.

    Raises:
        ConfigError: two servers have one name, a function cannot be a tool, or the MCP SDK is not installed.
        RuntimeError: the `Periscope` does not run.
    """

    def __init__(
        self,
        answering: Periscope | InferenceEngine | Answering,
        servers: Sequence[McpServer] = (),
        functions: Sequence[Callable[..., Any]] = (),
        *,
        model: str = "",
        params: GenerationParams = GenerationParams(),
    ) -> None:
        super().__init__(_source_of(answering), servers, functions, model=model, params=params)

    async def run_conversation(
        self, messages: Conversation, options: ConversationOptions = ConversationOptions()
    ) -> ConversationResult:
        """Have the model answer, run its calls side by side, and go on until it answers without one.

        Any number of conversations may run at once. Each turn is a request of its own: nothing of the model is held
        while tools run. Cancelling ends the answer or the calls that are under way.

        Args:
            messages: a question, `Message`s, or dicts as OpenAI's chat messages.

        Raises:
            PeriscopeError: the model could not be asked; see `Periscope`. What goes wrong with a tool is a result that
                the model reads.
            RuntimeError: it is called outside of the block.
        """
        return await super().run_conversation(await asyncio.to_thread(messages_of, messages), options)


def _source_of(answering: Periscope | InferenceEngine | Answering) -> Answering:
    if isinstance(answering, Periscope):
        return answering.runtime.service
    return LocalGenerator.over(answering) if isinstance(answering, InferenceEngine) else answering
