"""Seeing: what the pictures and files of one request become for its model, in as many steps as they come in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

from periscope.core import Message, Tell, VisionMode, VisionUsage
from periscope.errors import CaptionerUnavailable, RequestError, ServerBusy, ServerStopping
from periscope.serving.disabled_images import without_images
from periscope.serving.look import look_tools
from periscope.vision.documents.settings import DocumentMode, DocumentSettings
from periscope.vision.looking import Looking
from periscope.vision.numbering import Numbered
from periscope.vision.settings import ProxySettings

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.serving.models import ServedModel
    from periscope.serving.rounds import Rounds
    from periscope.vision.native import NativeVision
    from periscope.vision.proxy import VisionProxy

#: A model without vision gets the text of documents, which needs no captioner.
WITHOUT_VISION: Final = ProxySettings(documents=DocumentSettings(mode=DocumentMode.TEXT), video=None)


class Seeing:
    """Owns what a request keeps of its pictures until the block is left: pixels, or the files to be looked at again.

    Args:
        may_look: the model may look at pictures again.

    Attributes:
        looking: the pictures that may be looked at again.
    """

    def __init__(self, model: ServedModel, proxy: VisionProxy, native: NativeVision, *, may_look: bool) -> None:
        self.looking = Looking()
        self._model = model
        self._proxy = proxy
        self._native = native
        self._settings = model.proxy or WITHOUT_VISION
        self._kept_by = self.looking if may_look and self._settings.max_looks else None
        self._held = AsyncExitStack()
        self._numbered = Numbered()
        self._usage: VisionUsage | None = None

    async def __aenter__(self) -> Self:
        self._held.push_async_exit(self.looking)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.aclose()

    @property
    def usage(self) -> VisionUsage | None:
        """What all pictures so far have taken, looks included; None if there were none."""
        return self.looking.usage or self._usage

    async def see(self, rounds: Rounds, tell: Tell) -> None:
        """Replace the pictures and files of a conversation that have not been yet, and offer to look at them again.

        Raises:
            PeriscopeError: as `shown`.
        """
        rounds.see(await self.shown(rounds.unseen, tell))
        rounds.offer(look_tools(self.looking, rounds.asked_tools, self._settings.max_looks))

    async def see_results(self, rounds: Rounds, tell: Tell) -> None:
        """Replace the pictures in results of tools; the model is told of what cannot be shown, and goes on.

        Raises:
            ServerStopping: nothing new is taken.
        """
        if not rounds.unseen:
            return
        try:
            await self.see(rounds, tell)
        except ServerStopping:
            raise
        except (RequestError, ServerBusy, CaptionerUnavailable) as error:
            rounds.drop_images(error.message)

    async def shown(self, messages: Sequence[Message], tell: Tell = lambda _: None) -> tuple[Message, ...]:
        """The next messages of the conversation without image parts: with words or pixels in their places.

        Args:
            tell: called with what the request waits for.

        Raises:
            RequestError: an image or a file cannot be taken, or the model takes no images.
            CaptionerUnavailable: an image could not be described, and the model's `on_error` asks for an error.
            ServerBusy, ServerStopping: as `VisionProxy.rewrite`.
        """
        model = self._model
        if model.vision is VisionMode.NATIVE:
            shown = await self._native.shown(messages, self._settings, self._numbered)
            self._held.enter_context(shown)
            told, vision, self._numbered = shown.messages, shown.vision, shown.numbered
        else:
            if model.vision is VisionMode.DISABLED and any(message.images for message in messages):
                messages = without_images(messages, model)
            described = await self._proxy.rewrite(
                messages, model.captioner, self._settings, tell=tell, looking=self._kept_by, before=self._numbered
            )
            told, vision, self._numbered = described.messages, described.vision, described.numbered
        self._usage = vision if self._usage is None else self._usage.plus(vision)
        return told
