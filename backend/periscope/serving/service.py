"""ChatService: one chat request, end to end, without HTTP. Event loop only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from periscope.core import (
    AnswerEvent,
    ApprovalWanted,
    CaptionedImage,
    DescribedFile,
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    ModelCard,
    OutputEvent,
    ReasoningDelta,
    Role,
    ServerCallResult,
    ServerCallRun,
    TokenizedText,
    VisionMode,
    Waiting,
)
from periscope.errors import ContextLengthExceeded, InvalidRequest, MemoryExceeded, ServerStopping
from periscope.serving.cards import embedder_card, text_model_card
from periscope.serving.disabled_images import without_images
from periscope.serving.embeddings import EMBEDDER
from periscope.serving.generators import PooledGenerator, PooledTokenizer
from periscope.serving.health import Health, Notices, health_of
from periscope.serving.requests import Asked, LiveRequest, LiveRequests, operation_of
from periscope.serving.reserved import Work, while_reserved
from periscope.serving.rounds import Rounds, may_offer_tools
from periscope.serving.seeing import WITHOUT_VISION, Seeing
from periscope.serving.server_tools import ServerTools
from periscope.vision.captioner import Captioner
from periscope.vision.native import NativeVision
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings

if TYPE_CHECKING:
    from periscope.pool.pool import ModelPool
    from periscope.serving.models import ModelNames, ServedEmbedder, ServedModel
    from periscope.status import ModelStatus


class ModelElsewhere(Protocol):
    """A model on another server, which the pool does not hold."""

    @property
    def name(self) -> str:
        """The name of its entry in models.yaml."""
        ...

    def check(self) -> None:
        """Ask its server soon whether it works. Does not wait."""
        ...

    def status(self) -> ModelStatus:
        """The status of the model; does not block."""
        ...


#: The engine class of all text models in the pool.
_GENERATOR: type[PooledGenerator] = PooledGenerator  # type: ignore[type-abstract]  # nobody makes one of it
_TOKENIZER: type[PooledTokenizer] = PooledTokenizer  # type: ignore[type-abstract]  # as above
#: Events that are not written by the model.
_BESIDE: Final = (ServerCallRun, ServerCallResult, ApprovalWanted)


class ChatService:
    """Owns the steps of a request: captions, a lease, generation, events. It holds no state of single requests.

    Args:
        elsewhere: the models on other servers, which the server's status lists, too.
        notices: what is wrong beside the models.
    """

    def __init__(
        self,
        models: ModelNames,
        pool: ModelPool,
        proxy: VisionProxy,
        requests: LiveRequests,
        elsewhere: Iterable[ModelElsewhere] = (),
        *,
        native: NativeVision | None = None,
        notices: Notices | None = None,
    ) -> None:
        self._native = native or NativeVision()
        self._notices = notices or Notices()
        self._models = models
        self.replace_elsewhere(elsewhere)
        self._requests = requests
        self._pool = pool
        self._proxy = proxy
        self._is_stopping = False

    def replace_elsewhere(self, models: Iterable[ModelElsewhere]) -> None:
        """These are the models on other servers from now on."""
        self._elsewhere = {model.name: model for model in models}

    def check_elsewhere(self) -> None:
        """Ask all other servers soon whether they work. Does not wait."""
        for model in self._elsewhere.values():
            model.check()

    def stop_admitting(self) -> None:
        """Refuse new requests with ServerStopping. Running ones go on."""
        self._is_stopping = True

    def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """Answer as `answer` does, for a client that asks for no tools on MCP servers and hears of none."""
        return cast("AsyncGenerator[OutputEvent, None]", self.answer(request, ServerTools()))

    async def answer(self, request: GenerationRequest, servers: ServerTools) -> AsyncGenerator[AnswerEvent, None]:
        """The request's events, `Finished` last. `aclose()` at any point frees what the request holds or waits for.

        Args:
            servers: the tools on MCP servers that the model may call; their calls are run within the request.

        Raises:
            RequestError: the client's fault; before the first event, unless it shows only once captions are made or the
                prompt is rendered.
            ServerBusy: its model, its captioner or the intake of images has too many requests already.
            ServerStopping, ModelUnavailable, CaptionerUnavailable, GenerationFailed, EngineClosed: ours.
        """
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        model = self._models.resolve(request.model)
        asked = Asked(_num_images(request), request.num_completions, operation_of(request))
        with self._requests.entered(request.id, model.name, asked) as live:
            request = _as_seen(_as_configured(request, model), model)
            async with Seeing(model, self._proxy, self._native, may_look=may_offer_tools(request)) as seeing:
                rounds = Rounds(request, servers)
                # It holds the images as they were sent, which are dropped as soon as they are described or decoded: no
                # base64 is held while the answer is generated. Their files are kept only if the model may look at them
                # again, their pixels only if it sees them itself.
                del request
                while rounds.finished is None:
                    async with aclosing(self._round(rounds, seeing, model, live)) as events:
                        async for event in events:
                            if isinstance(event, Waiting):
                                live.waits(event)
                            elif not isinstance(event, _BESIDE):
                                live.writes(is_thinking=isinstance(event, ReasoningDelta))
                            yield event
                vision = seeing.usage
                finished = rounds.finished if vision is None else replace(rounds.finished, vision=vision)
                live.finished = finished
                yield finished

    async def _round(
        self, rounds: Rounds, seeing: Seeing, model: ServedModel, live: LiveRequest
    ) -> AsyncGenerator[AnswerEvent, None]:
        """What comes before the next answer of the model: captions, calls; then a lease, and that answer.

        A place at the text model comes first, so that a full queue is an error before any captioner works or any tool
        is called. It is only reserved until the captions and the results are there or the images decoded: a request
        never holds two models, and others are served meanwhile.
        """
        is_reserved = rounds.has_calls or bool(rounds.unseen)
        with ExitStack() as held:
            place = None
            if not rounds.ends_with_calls:
                place = held.enter_context(self._pool.ticket(model.name, is_reserved=is_reserved))
            steps: list[Work] = [partial(seeing.see, rounds)] if rounds.unseen else []
            steps += [rounds.run_calls, partial(seeing.see_results, rounds)] if rounds.has_calls else []
            for step in steps:
                async with aclosing(while_reserved(place, step)) as events:
                    async for event in events:
                        yield event
            if place is None:
                return
            async for waiting in place.updates():
                yield waiting
            live.generates()
            async with aclosing(_generated(rounds, place.engine(_GENERATOR))) as events:
                async for event in events:
                    yield event

    async def tokenize(self, model: str, text: str, *, adds_special_tokens: bool) -> TokenizedText:
        """A plain text as the model reads it. The model is loaded for it if it is not in memory.

        Raises:
            ModelNotFound: there is no such model.
            ServerBusy, ServerStopping, ModelUnavailable, EngineClosed: the model cannot be had now.
        """
        async with self._leased(self._models.resolve(model)) as generator:
            tokens = await generator.tokens_of(text, adds_special_tokens=adds_special_tokens)
            return TokenizedText(tokens, generator.facts.context_length)

    async def tokenize_chat(self, request: GenerationRequest) -> TokenizedText:
        """The rendered prompt of a request that is not answered. Images are described or decoded as for an answer.

        The tool with which the model looks at an image again is not in it.

        Raises:
            RequestError: an image or a file cannot be taken, or the prompt cannot be rendered or does not fit.
            Otherwise as `tokenize`.
        """
        model = self._models.resolve(request.model)
        request = _as_seen(_as_configured(request, model), model)
        async with Seeing(model, self._proxy, self._native, may_look=False) as seeing:
            if _has_images(request) or _has_files(request):
                request = replace(request, messages=await seeing.shown(request.messages))
            async with self._leased(model) as generator:
                tokens = await generator.tokens_of(request, adds_special_tokens=False)
                return TokenizedText(tokens, generator.facts.context_length)

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """The text of token ids of this model, special tokens included.

        Raises:
            InvalidRequest: an id is not in the vocabulary.
            Otherwise as `tokenize`.
        """
        async with self._leased(self._models.resolve(model)) as generator:
            return await generator.text_of(token_ids)

    @asynccontextmanager
    async def _leased(self, model: ServedModel) -> AsyncGenerator[PooledTokenizer, None]:
        """The model, in memory as long as the block runs."""
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        with self._pool.ticket(model.name) as ticket:
            await ticket.granted()
            yield ticket.engine(_TOKENIZER)

    async def caption(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        """What the model's captioner says about each image, in order; cached captions count.

        Raises:
            InvalidRequest: the model has no captioner, or there are too many new images.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the captioner, or the intake of images, has too many requests already.
            ServerStopping: the server takes no new requests.
        """
        return await self._proxy.describe(images, *self._vision_of(model))

    async def read(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        """What the model's reader reads in each image, in order, without a caption; texts in the cache count.

        Raises:
            InvalidRequest: the model has no captioner or no reader, or there are too many images.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the reader, or the intake of images, has too many requests already.
            ServerStopping: the server takes no new requests.
        """
        return await self._proxy.read(images, self._vision_of(model)[1])

    def _vision_of(self, model: str) -> tuple[Captioner, ProxySettings]:
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        served = self._models.resolve(model)
        if served.captioner is None or served.proxy is None:
            raise InvalidRequest(
                f"Model {served.name} has no captioner. Set `capabilities.vision_mode: proxy` for it in models.yaml.",
                param="model",
            )
        return served.captioner, served.proxy

    async def describe_files(self, model: str, files: tuple[FilePart | ImagePart, ...]) -> tuple[DescribedFile, ...]:
        """What the model reads in place of each attached file, in order, as if it stood alone in a conversation.

        Raises:
            FileInvalid, ImageInvalid, ImageSourceRefused: a file cannot be taken.
            CaptionerUnavailable: a page could not be described, and the model's `on_error` asks for an error.
            ServerBusy: the captioner, or the intake of files, has too many requests already.
            ServerStopping: the server takes no new requests.
        """
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        served = self._models.resolve(model)
        settings = WITHOUT_VISION if served.captioner is None else served.proxy or WITHOUT_VISION
        described = []
        for part in files:
            told = await self._proxy.rewrite([Message(Role.USER, (part,))], served.captioner, settings)
            described.append(DescribedFile(told.messages[0].text, told.vision.num_images, told.vision.num_failed))
        return tuple(described)

    @property
    def default_model(self) -> str:
        """The name of the model that answers requests that name none."""
        return self._models.default.shown_name

    def models(self) -> tuple[ModelCard, ...]:
        """All models clients may name, the default one first and embedding models last; instant."""
        texts = map(self._text_model_card, self._models.listed)
        return (*texts, *map(self._embedder_card, self._models.embedders))

    def _text_model_card(self, model: ServedModel) -> ModelCard:
        generator = self._pool.loaded(model.name, _GENERATOR)
        return text_model_card(model, None if generator is None else generator.facts, self._pool.status(model.name))

    def _embedder_card(self, model: ServedEmbedder) -> ModelCard:
        return embedder_card(model, self._pool.loaded(model.name, EMBEDDER), self._pool.status(model.name))

    def health(self) -> Health:
        """The server's health at this moment. Touches no device and does not wait."""
        is_starting = self._models.default.name in self._pool.preloading
        return health_of(
            self.statuses(),
            self._models,
            is_starting=is_starting,
            is_stopping=self._is_stopping,
            notices=self._notices.sentences,
        )

    def statuses(self) -> tuple[ModelStatus, ...]:
        """All configured models: those of the pool, then those on other servers. Instant."""
        return (*self._pool.statuses(), *(model.status() for model in self._elsewhere.values()))

    def status_of(self, name: str) -> ModelStatus:
        """The status of one configured model, by its name.

        Raises:
            KeyError: there is none of this name, for instance because it was removed.
        """
        elsewhere = self._elsewhere.get(name)
        return self._pool.status(name) if elsewhere is None else elsewhere.status()


async def _generated(rounds: Rounds, generator: PooledGenerator) -> AsyncGenerator[AnswerEvent, None]:
    """What the client gets of the round; tried again without the results of the calls if those do not fit."""
    while True:
        try:
            async with aclosing(generator.stream(rounds.request_for(generator.facts))) as events:
                async for event in events:
                    if (told := rounds.take(event)) is not None:
                        yield told
        except (ContextLengthExceeded, MemoryExceeded):  # before the first event
            if not rounds.drop_results():
                raise
        else:
            return


def _num_images(request: GenerationRequest) -> int:
    return sum(len(message.images) for message in request.messages)


def _has_images(request: GenerationRequest) -> bool:
    return any(message.images for message in request.messages)


def _has_files(request: GenerationRequest) -> bool:
    return any(message.files for message in request.messages)


def _as_configured(request: GenerationRequest, model: ServedModel) -> GenerationRequest:
    """The request, with what it leaves open filled in from the settings of the model or variant that it names."""
    params, template_kwargs = request.params.over(model.params), model.template_kwargs | request.template_kwargs
    if params is request.params and template_kwargs == request.template_kwargs:
        return request
    return replace(request, params=params, template_kwargs=template_kwargs)


def _as_seen(request: GenerationRequest, model: ServedModel) -> GenerationRequest:
    """Apply the model's vision mode: the request keeps its images unless the model has no vision.

    Raises:
        ImageRejected: the model takes no images.
    """
    if _has_images(request) and model.vision is VisionMode.DISABLED:
        return replace(request, messages=without_images(request.messages, model))
    return request
