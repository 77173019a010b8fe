"""LocalGenerator: a text engine of this process that answers in output events instead of tokens.

Event loop only. A request is one completion or several, of one prompt or several. The finish reason is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self, TypeAlias

from periscope.core import (
    Echo,
    EndReason,
    FilePart,
    Finished,
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Image,
    ImagePart,
    Message,
    OutputEvent,
    ReasoningDelta,
    Role,
    TextDelta,
    TextPart,
    TextPrompt,
    TokenLogprob,
    TokenText,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from periscope.engine import GenerationStats, InferenceEngine
from periscope.errors import ContextLengthExceeded, ImageRejected, InvalidRequest, MemoryExceeded, NotThinking
from periscope.parsing.registry import parser_for
from periscope.serving.answer_stops import AnswerStops
from periscope.serving.generators import GeneratorFacts
from periscope.serving.warming import warm

if TYPE_CHECKING:
    from periscope.engine import GenerationStream
    from periscope.engine.text.chat_template import RenderedPrompt
    from periscope.engine.worker.reports import TokenChunk
    from periscope.parsing.contracts import Delta, Parser

#: Bound of the queue between the choices and their reader. When it is full, chunks wait in the engine's streams.
_MAX_BUFFERED = 64
#: Bound of the prompt tokens of one request, in all its choices, whose log-probabilities are told: some 20 MB of JSON.
MAX_SCORED_TOKENS = 32_768
#: Of a prediction no more is tokenised than so many characters for each token of the context.
_CHARS_PER_PREDICTED_TOKEN = 8


@dataclass(frozen=True, slots=True)
class _Ended:
    """How one choice ended, and what it took."""

    choice: int
    reason: EndReason
    stats: GenerationStats
    num_reasoning_tokens: int
    stop_string: str | None


@dataclass(slots=True)
class _Choice:
    """One completion while it is generated: its row, its parser, and how much it has thought so far."""

    chunks: GenerationStream
    parser: Parser
    num_reasoning_tokens: int = 0

    def read(self, chunk: TokenChunk) -> list[Delta]:
        """What the chunk adds to the completion."""
        was_reasoning = self.parser.is_reasoning
        deltas = self.parser.feed(chunk.text)
        if was_reasoning or self.parser.is_reasoning:
            self.num_reasoning_tokens += chunk.num_tokens
        if chunk.finish_reason is not None:
            deltas += self.parser.finish(is_cut_off=chunk.finish_reason is FinishReason.LENGTH)
        return deltas


_ChoiceEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | _Ended


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt as the engine takes it.

    Attributes:
        echo: the text with which its completions begin; "" unless the request asks for that.
    """

    rendered: RenderedPrompt
    echo: str = ""


class LocalGenerator(InferenceEngine):
    """A `TextGenerator` on this machine. It is also the engine that the pool loads and frees.

    Owns the choices of the requests that run, by request id, so that their thinking can be ended.
    """

    @classmethod
    def over(cls, engine: InferenceEngine) -> Self:
        """The same engine as a generator: one state under two types, so that closing either closes both."""
        made = cls.__new__(cls)
        made.__dict__ = engine.__dict__
        return made

    def begin_warming(self, name: str, read: Callable[[], Sequence[str]]) -> None:
        """Have system prompts computed once the model has nothing else to do, see `warm`."""
        self._warming = asyncio.create_task(warm(self, name, read), name=f"warm {name}")  # without it, it is collected

    @cached_property
    def _choices(self) -> dict[str, list[_Choice]]:
        return {}

    @cached_property
    def facts(self) -> GeneratorFacts:
        """What the loaded model can do."""
        info = self.model_info
        return GeneratorFacts(
            info.context_length,
            info.has_tools,
            info.has_reasoning,
            info.is_batched,
            info.chat_template,
            info.authors_sampling,
        )

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None]
    ) -> tuple[str, int]:
        """Describe an image greedily, as the captioner of other models. For a model with vision.

        Returns:
            The text, which may be empty, and the number of generated tokens.

        Raises:
            GenerationFailed, EngineClosed: the model failed, or was unloaded.
        """
        on_start()
        question = Message(Role.USER, (image, TextPart(prompt)))
        rendered = await self.render([question], template_kwargs={"enable_thinking": False})
        output = await self.generate(rendered, GenerationParams(temperature=0.0, max_tokens=max_tokens))
        return output.text, len(output.tokens)

    async def tokens_of(self, prompt: str | GenerationRequest, *, adds_special_tokens: bool) -> tuple[TokenText, ...]:
        if isinstance(prompt, str):
            token_ids = await self._off_loop(
                partial(self._tokenizer.encode, prompt, adds_special_tokens=adds_special_tokens)
            )
        else:
            token_ids = (await self._rendered(prompt)).token_ids
        return await self._off_loop(partial(self._tokenizer.token_texts, token_ids))

    async def text_of(self, token_ids: Sequence[int]) -> str:
        known = self._tokenizer.checked(token_ids, param="tokens")
        return await self._off_loop(partial(self._tokenizer.decode, known))

    def answer_now(self, request_id: str) -> None:
        if not self.facts.has_reasoning:
            raise NotThinking(
                f"Model {self.model_info.name} marks no thinking, so there is none to end. The request goes on.",
                param="id",
            )
        thinking = [choice for choice in self._choices.get(request_id, ()) if choice.parser.is_reasoning]
        if not thinking:
            raise NotThinking("The request does not think now: it waits, or writes its answer already.", param="id")
        for choice in thinking:
            choice.chunks.end_thinking()

    @contextmanager
    def running(self, request_id: str, choice: _Choice) -> Iterator[None]:
        """Know of a choice of the request while the block runs."""
        choices = self._choices.setdefault(request_id, [])
        choices.append(choice)
        try:
            yield
        finally:
            choices.remove(choice)
            if not choices:
                del self._choices[request_id]

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """The request's events, `Finished` last. Closing it frees its rows.

        Raises:
            RequestError: the prompt or the schema cannot be used; before the first event.
            GenerationFailed, EngineClosed: a choice failed; the others are given up.
        """
        if request.counts_only:
            yield Finished(FinishReason.STOP, Usage(await self._num_prompt_tokens(request)))
            return
        params = request.params.over(self.model_info.authors_sampling)
        request = request if params is request.params else replace(request, params=params)
        prompts = await self._prompts(request)
        ends: dict[int, _Ended] = {}
        param = "prompt" if request.prompts else "messages"
        async with aclosing(_all_choices(self, request, prompts)) as events:
            with _telling(param):
                async for event in events:
                    if isinstance(event, _Ended):
                        ends[event.choice] = event
                    else:
                        yield event
        yield _finished([ends[choice] for choice in range(request.num_completions)], request.num_choices)

    async def _prompts(self, request: GenerationRequest) -> Sequence[_Prompt]:
        """The request's prompts: its texts, or the one of its conversation.

        Raises:
            RequestError: one cannot be rendered or does not fit; names it.
        """
        if not request.prompts:
            rendered = await self._rendered(request)
            if request.prediction:
                predicted = await self._off_loop(partial(self._predicted, request.prediction))
                rendered = replace(rendered, prediction=predicted)
            return [_Prompt(rendered)]
        prompts = []
        for text in request.prompts:
            with _telling(text.param):
                rendered = await self.render(text)
            prompts.append(_Prompt(rendered, "" if request.echo is Echo.NONE else await self._text(text)))
        if request.params.prompt_logprobs:
            _check_scored(sum(len(prompt.rendered.token_ids) for prompt in prompts) * request.num_choices)
        return prompts

    def _predicted(self, text: str) -> tuple[int, ...]:
        """The tokens of a prediction, as far as a context could hold them. Blocks for a time bounded by the context."""
        most = self.model_info.context_length
        return self._tokenizer.encode(text[: most * _CHARS_PER_PREDICTED_TOKEN], adds_special_tokens=False)[:most]

    async def _text(self, prompt: TextPrompt) -> str:
        source = prompt.source
        return source if isinstance(source, str) else await self._off_loop(partial(self._tokenizer.decode, source))

    async def _rendered(self, request: GenerationRequest) -> RenderedPrompt:
        _check_rewritten(request)
        return await self.render(
            request.messages, request.output.tools, request.template_kwargs, continues=request.continues
        )

    async def _num_prompt_tokens(self, request: GenerationRequest) -> int:
        """The length of the prompt, which may be more than the context holds.

        Raises:
            RequestError: the prompt cannot be rendered, or is so long that it was refused before it was tokenised.
        """
        try:
            return len((await self._rendered(request)).token_ids)
        except ContextLengthExceeded as error:
            if error.is_lower_bound:
                raise
            return error.num_prompt_tokens


def _check_rewritten(request: GenerationRequest) -> None:
    """No template would show an image or a file that nobody has described or decoded; it must not vanish."""
    for message in request.messages:
        shown: tuple[ImagePart | FilePart, ...] = (*message.images, *message.files)
        for part in shown:
            raise ImageRejected("The model by itself takes no images and no files: send text.", param=part.param)


def _check_scored(num_tokens: int) -> None:
    if num_tokens > MAX_SCORED_TOKENS:
        raise InvalidRequest(
            f"The log-probabilities of {num_tokens} prompt tokens are asked for; at most {MAX_SCORED_TOKENS} are told "
            "at once. Send the prompts in several requests, or leave `echo` or `logprobs` out.",
            param="echo",
        )


def _finished(ends: list[_Ended], num_choices: int) -> Finished:
    """The last event. Each prompt is counted once, with the cached tokens of the first of its `num_choices`."""
    firsts = [end.stats for end in ends[::num_choices]]
    usage = Usage(
        sum(first.num_prompt_tokens for first in firsts),
        sum(end.stats.num_completion_tokens for end in ends),
        sum(first.num_cached_tokens for first in firsts),
        sum(end.num_reasoning_tokens for end in ends),
        sum(end.stats.num_accepted_tokens for end in ends),
        sum(end.stats.num_rejected_tokens for end in ends),
    )
    others = tuple(end.reason for end in ends[1:])
    return Finished(ends[0].reason, usage, other_finish_reasons=others, stop_string=ends[0].stop_string)


def _all_choices(
    engine: LocalGenerator, request: GenerationRequest, prompts: Sequence[_Prompt]
) -> AsyncGenerator[_ChoiceEvent, None]:
    if request.num_completions == 1:
        return _one_choice(engine, request, prompts[0], 0)
    return _several_choices(engine, request, prompts)


async def _several_choices(
    engine: LocalGenerator, request: GenerationRequest, prompts: Sequence[_Prompt]
) -> AsyncGenerator[_ChoiceEvent, None]:
    buffer: asyncio.Queue[_ChoiceEvent | Exception] = asyncio.Queue(_MAX_BUFFERED)

    async def pump(choice: int) -> None:
        try:
            prompt = prompts[choice // request.num_choices]
            async with aclosing(_one_choice(engine, request, prompt, choice)) as events:
                async for event in events:
                    await buffer.put(event)
        except Exception as error:  # noqa: BLE001 - raised again by the reader
            await buffer.put(error)

    pumps = [asyncio.create_task(pump(choice)) for choice in range(request.num_completions)]
    try:
        num_ended = 0
        while num_ended < request.num_completions:
            item = await buffer.get()
            if isinstance(item, Exception):
                raise item
            num_ended += isinstance(item, _Ended)
            yield item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _one_choice(
    engine: LocalGenerator, request: GenerationRequest, prompt: _Prompt, choice: int
) -> AsyncGenerator[_ChoiceEvent, None]:
    if request.echo is Echo.ALONE:
        yield TextDelta(prompt.echo, await _prompt_logprobs(engine, request, prompt), choice)
        stats = GenerationStats(len(prompt.rendered.token_ids), 0, 0, 0.0, 0.0)
        yield _Ended(choice, FinishReason.LENGTH, stats, 0, None)
        return
    constraint = await engine.constraint_for(prompt.rendered, request.output)
    stops = AnswerStops(request.params.stop)
    reason, num_tool_calls = FinishReason.STOP, 0
    params = _params_of(request.params, choice % request.num_choices)
    opening = engine.generate_stream(prompt.rendered, params, request.output, constraint=constraint)
    live = _Choice(opening, parser_for(constraint.output_format, request.output))
    async with opening as chunks:
        with engine.running(request.id, live):
            is_echo = request.echo is Echo.PROMPT
            async for chunk in chunks:
                if is_echo:  # not before the first chunk: until then the request may be refused
                    yield TextDelta(prompt.echo, chunk.prompt_logprobs, choice)
                    is_echo = False
                reason = chunk.finish_reason or reason
                for delta in stops.take(live.read(chunk), chunk.logprobs, is_last=chunk.finish_reason is not None):
                    num_tool_calls += isinstance(delta, ToolCallStart)
                    yield replace(delta, choice=choice) if choice else delta
                if stops.is_hit:  # leaving the block frees the row
                    reason = FinishReason.STOP
                    break
        end = _end_reason(reason, num_tool_calls)
        yield _Ended(choice, end, chunks.stats, live.num_reasoning_tokens, stops.found)


async def _prompt_logprobs(
    engine: LocalGenerator, request: GenerationRequest, prompt: _Prompt
) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of the prompt's tokens, if wanted. They come with a first token, which nobody wants."""
    if request.params.prompt_logprobs:
        async with engine.generate_stream(prompt.rendered, replace(request.params, stop=())) as chunks:
            async for chunk in chunks:
                return chunk.prompt_logprobs
    return ()


@contextmanager
def _telling(param: str) -> Iterator[None]:
    """Let errors about the prompt's size name the field that holds the prompt."""
    try:
        yield
    except (ContextLengthExceeded, MemoryExceeded) as error:
        error.param = param
        raise


def _params_of(params: GenerationParams, choice: int) -> GenerationParams:
    """The parameters for the engine. Stop strings are left out: they act on the answer, which the engine does not know.

    Choices with the same seed differ from each other, and repeat in the next request with that seed.
    """
    params = replace(params, stop=()) if params.stop else params
    return params if choice == 0 or params.seed is None else replace(params, seed=(params.seed + choice) % 2**64)


def _end_reason(reason: FinishReason, num_tool_calls: int) -> EndReason:
    if reason is FinishReason.LENGTH:
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if num_tool_calls else FinishReason.STOP
