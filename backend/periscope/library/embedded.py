"""Periscope: all models of a models.yaml in this process, with pictures, captions and embeddings, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from periscope.api.feed import EventFeed, collect, until_finished
from periscope.api.openai.embeddings import decode_embedding
from periscope.config import Config, load
from periscope.core import (
    CaptionedImage,
    Finished,
    GenerationParams,
    GenerationRequest,
    JSONObject,
    ModelCard,
    OutputEvent,
    OutputSpec,
    new_id,
)
from periscope.errors import ConfigError
from periscope.library.answer import ChatAnswer, answer_of
from periscope.library.arguments import check_arguments
from periscope.library.conversation import Conversation, messages_of
from periscope.library.pictures import Picture, picture
from periscope.runtime import Runtime

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray


class Periscope:
    """Owns one `Runtime`. Use it on one event loop: `async with Periscope("models.yaml") as periscope: ...`.

    Any number of calls may run at once. Cancelling the task of a call ends all its work. All calls raise:

    - `RequestError`, whose `param` names what to mend: an unknown model, a picture that cannot be read, a prompt that
      does not fit;
    - `ServerBusy`, `ModelUnavailable`, `CaptionerUnavailable`, `ServerStopping`: the model cannot be had now;
    - `GenerationFailed`, `EngineClosed`: the model failed;
    - `RuntimeError`: it does not run, or on another event loop.

    Args:
        config: the path of a models.yaml, or what `periscope.config.load` made of one; None = the file that
            `periscope serve` would read.
    """

    def __init__(self, config: str | PathLike[str] | Config | None = None) -> None:
        self._given = config
        self._runtime: Runtime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> Self:
        """Load the models with `preload: true`, and wait for them. Others are loaded when a call names them.

        A model that cannot be loaded makes the calls that name it fail with `ModelUnavailable`, and no others.

        Raises:
            ConfigError: the configuration cannot be used; tells every problem with its line.
            RuntimeError: it runs already.
        """
        if self._runtime is not None:
            raise RuntimeError("This Periscope runs already.")
        given = self._given
        config = given if isinstance(given, Config) else await asyncio.to_thread(_loaded, given)
        runtime = self._runtime = Runtime(config)
        self._loop = asyncio.get_running_loop()
        try:
            await runtime.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Idempotent: refuse new calls, let running ones finish for up to `drain_s` seconds, and free every model."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.stop(drain_s=drain_s)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def runtime(self) -> Runtime:
        """The parts it is made of: status, control of models, events.

        Raises:
            RuntimeError: it does not run.
        """
        if self._runtime is None:
            raise RuntimeError("This Periscope does not run: use it inside of `async with`, or await `start()` first.")
        return self._runtime

    def _runtime_here(self) -> Runtime:
        runtime = self.runtime
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "This Periscope runs on another event loop. Make one for each, call it on its own loop by "
                "`asyncio.run_coroutine_threadsafe`, or use `periscope.sync.Periscope`, which all threads may share."
            )
        return runtime

    def models(self) -> tuple[ModelCard, ...]:
        """The models that calls may name, the default one first and embedding models last. Does not block."""
        return self.runtime.service.models()

    async def chat(
        self,
        conversation: Conversation,
        *,
        images: Sequence[Picture] = (),
        model: str = "",
        params: GenerationParams = GenerationParams(),
        output: OutputSpec = OutputSpec(),
        template_kwargs: JSONObject | None = None,
    ) -> ChatAnswer:
        """The model's whole answer.

        Args:
            conversation: a question, `Message`s, or dicts as OpenAI's chat messages.
            images: shown with the last message of the user, before its text; see `picture`.
            model: name or alias; "" = the default one.
            params: what is left open there is filled in from the model's settings.
            output: tools, and the form of the answer.
            template_kwargs: variables of the chat template (`enable_thinking`, ...).
        """
        runtime = self._runtime_here()
        request = await _request(
            conversation, images, model, params=params, output=output, template_kwargs=template_kwargs
        )
        events = runtime.service.stream(request)
        del request  # it holds the images as they were given, which are let go once they are captioned
        return answer_of(await collect(events))

    async def stream(
        self,
        conversation: Conversation,
        *,
        images: Sequence[Picture] = (),
        model: str = "",
        params: GenerationParams = GenerationParams(),
        output: OutputSpec = OutputSpec(),
        template_kwargs: JSONObject | None = None,
    ) -> AsyncGenerator[OutputEvent, None]:
        """The answer while it is made: `Waiting`, `ReasoningDelta`, `TextDelta`, calls; at the end one `Finished`.

        Closing it ends all its work: `async with contextlib.aclosing(periscope.stream(...)) as events`. A
        reader that is slow slows this answer only.

        Args:
            Those of `chat`.
        """
        runtime = self._runtime_here()
        request = await _request(
            conversation, images, model, params=params, output=output, template_kwargs=template_kwargs
        )
        events = runtime.service.stream(request)
        del request
        async with aclosing(_fed(events)) as fed:
            async for event in fed:
                yield event

    async def caption(self, *images: Picture, model: str = "") -> tuple[CaptionedImage, ...]:
        """What the model's captioner says about each picture, in order, and the text that stands in it.

        Captions are kept: the same picture is described once. One that could not be described has an `error`.

        Args:
            model: the text model whose captioner it is; "" = the default one.
        """
        runtime = self._runtime_here()
        parts = await asyncio.to_thread(lambda: tuple(picture(each, f"images[{i}]") for i, each in enumerate(images)))
        return await runtime.service.caption(model, parts)

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "",
        dimensions: int | None = None,
        prompt_name: str | None = None,
    ) -> NDArray[np.float32]:
        """The vectors of texts, of shape (texts, dimensions); of one text, given as a `str`, of shape (1, dimensions).

        Args:
            model: an embedding model; "" = the first one of models.yaml.
            dimensions: numbers of a vector; None = all.
            prompt_name: which of the model's own prompts goes before each text (`query`, `document`).
        """
        runtime = self._runtime_here()
        given = texts if isinstance(texts, str) else list(texts)
        body = {"model": model, "input": given, "dimensions": dimensions, "prompt_name": prompt_name}
        made = await runtime.embeddings.embed(decode_embedding(body, new_id("embd-")).request)
        return np.frombuffer(b"".join(made.vectors), dtype="<f4").reshape(len(made.vectors), -1)


def _loaded(given: str | PathLike[str] | None) -> Config:
    path = None if given is None else Path(given).expanduser()
    if path is not None and not path.is_file():
        raise ConfigError((f"There is no file {path.absolute()}.",))
    return load(path)


async def _request(
    conversation: Conversation,
    images: Sequence[Picture],
    model: str,
    *,
    params: GenerationParams,
    output: OutputSpec,
    template_kwargs: JSONObject | None,
) -> GenerationRequest:
    check_arguments(model, params, output)
    messages = await asyncio.to_thread(messages_of, conversation, images)
    return GenerationRequest(new_id("chat-"), model, messages, params, output, template_kwargs=template_kwargs or {})


async def _fed(events: AsyncGenerator[OutputEvent, None]) -> AsyncGenerator[OutputEvent, None]:
    """The same events, which any task may read and close: a task of its own iterates over `events`."""
    async with EventFeed(until_finished(events)) as feed:
        while True:
            event = await feed.next()
            if event is not None:
                yield event
            if isinstance(event, Finished):
                return
