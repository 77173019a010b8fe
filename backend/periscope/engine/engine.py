"""InferenceEngine: the text engine as a library. Used on the event loop; the model lives on its worker thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast

from periscope.core import (
    ConstraintKind,
    FinishReason,
    GenerationParams,
    JSONObject,
    Message,
    OutputFormat,
    OutputSpec,
    TextPrompt,
    Tool,
    ToolCallStyle,
)
from periscope.engine.config import EngineConfig
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.generation import GenerationOutput, GenerationStream, PreparedRequest
from periscope.engine.loading.generation_config import authors_sampling
from periscope.engine.loading.loader import (
    LIBRARY_LOCK,
    LoadProgress,
    context_length_of,
    find_on_disk,
    read_model_config,
    vocab_size_of,
)
from periscope.engine.structured.constraint import Constraint, begun_answer
from periscope.engine.structured.grammars import Grammars
from periscope.engine.structured.thinking import ThinkingRules
from periscope.engine.text.chat_template import ChatTokenizer, RenderedPrompt
from periscope.engine.text.output_format import default_template
from periscope.engine.worker.commands import TokenPrompt
from periscope.engine.worker.failures import as_generation_failure
from periscope.engine.worker.host import HostedEngine, RunningWorker, start_worker
from periscope.errors import ContextLengthExceeded, EngineClosed, InvalidRequest, ModelLoadError, PeriscopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from periscope.engine.device.memory import DeviceMemory
    from periscope.engine.text_model import TextFacts, TextModel
    from periscope.engine.worker.stream import TokenStream

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Threads that tokenise prompts and compile grammars. More than one, so that a slow schema does not block all prompts.
NUM_PREPARING_THREADS = 2
#: Plain text, token ids, a chat for the model's template, or what `InferenceEngine.render` made of one of them. What
#: follows a `TextPrompt` is text; what follows the others is read as the model's answer in a chat.
Prompt: TypeAlias = str | Sequence[int] | Sequence[Message] | TextPrompt | RenderedPrompt


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The properties of a loaded text model.

    Attributes:
        context_length: in tokens, prompt and completion together.
        is_batched: whether concurrent requests share forward passes; else they take turns, token by token.
        chat_template: its Jinja source; None for a model without one.
        authors_sampling: for what a request and its model's settings leave open, see `authors_sampling`.
    """

    name: str
    path: Path
    architecture: str
    context_length: int
    has_chat_template: bool
    has_tools: bool
    has_reasoning: bool
    is_batched: bool
    chat_template: str | None = None
    authors_sampling: GenerationParams = GenerationParams()


class InferenceEngine(HostedEngine):
    """Owns one text model: its worker thread, its tokenizer and a small executor for tokenising."""

    def __init__(
        self,
        worker: RunningWorker[TextFacts],
        tokenizer: ChatTokenizer,
        grammars: Grammars,
        info: ModelInfo,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(worker)
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._clock = clock
        self._executor = ThreadPoolExecutor(NUM_PREPARING_THREADS, thread_name_prefix="periscope-prepare")
        self.model_info = info
        self._free = {
            (opened, continues): Constraint(
                None, replace(tokenizer.output_format, starts_in_reasoning=opened, continues_text=continues)
            )
            for opened in (False, True)
            for continues in (False, True)
        }

    def __repr__(self) -> str:
        return f"<InferenceEngine {self.model_info.name} alive={self.is_alive} rows={self.num_rows}>"

    @classmethod
    async def load(
        cls,
        model: str,
        config: EngineConfig | None = None,
        *,
        turn: DeviceTurn | None = None,
        progress: LoadProgress = lambda _done, _total: None,
        memory: DeviceMemory | None = None,
    ) -> Self:
        """Load a text model from a folder or the hub cache; never downloads.

        Args:
            model: a folder, or a hub id such as `mlx-community/Qwen3-4B-4bit` that is on this disk.
            config: how to load and run it.
            turn: shared by engines of one process, so that they do not starve each other.
            progress: called on the worker thread with (bytes loaded, bytes in all).
            memory: the memory budget that all engines of one process share, and their reservations in it; None = what
                the device recommends.

        Raises:
            ModelLoadError: it is not here, or cannot be loaded; says why and what to do.
        """
        settings = config or EngineConfig()
        path = find_on_disk(model, settings.revision)
        model_config = read_model_config(path)
        shared_turn = turn or DeviceTurn()

        def load_model() -> TextModel:
            with LIBRARY_LOCK:  # importing mlx-lm takes seconds: done here, not at start-up
                from periscope.engine.text_model import TextModel
            return TextModel.load(path, settings, shared_turn, progress, memory)

        name = settings.name_of(model)
        worker = await start_worker(name, load_model, shared_turn, report_interval_s=settings.stream_interval_ms / 1000)
        if not worker.facts.is_batched:
            logger.warning(
                "%s is not batched: mlx-lm cannot compute several requests of this architecture in one forward pass. "
                "Requests that run together take turns, token by token.",
                name,
            )
        try:
            return await cls._over(worker, name, path, model_config, settings)
        except BaseException as error:
            await HostedEngine(worker).close()  # else its thread and the weights would never be freed
            if isinstance(error, PeriscopeError) or not isinstance(error, Exception):
                raise
            raise ModelLoadError(f"The tokenizer of {name} cannot be used: {type(error).__name__}: {error}.") from error

    @classmethod
    async def _over(
        cls, worker: RunningWorker[TextFacts], name: str, path: Path, model_config: JSONObject, settings: EngineConfig
    ) -> Self:
        """Build tokenizer, grammar compiler and model info of a loaded model. Broken files may raise anything."""
        facts = worker.facts
        context_length = context_length_of(model_config, settings.context_length)
        tokenizer = await asyncio.to_thread(
            ChatTokenizer,
            facts.tokenizer,
            settings.chat_template_kwargs,
            vocab_size=vocab_size_of(model_config),
            context_length=context_length,
            wants_checkpoints=facts.wants_checkpoints,
            image_tokenizer=facts.images,
            thinking_end_message=settings.thinking_end_message,
            tool_parser=settings.tool_parser,
            reasoning_parser=settings.reasoning_parser,
        )
        if settings.chat_template is not None:
            tokenizer.check_template()
        grammars = Grammars(
            facts.tokenizer,
            vocab_size=facts.vocab_size,
            eos_token_ids=facts.tokenizer.eos_token_ids,
            output_format=tokenizer.output_format,
        )
        info = ModelInfo(
            name=name,
            path=path,
            architecture=str(model_config.get("model_type", "unknown")),
            context_length=context_length,
            has_chat_template=tokenizer.has_chat_template,
            has_tools=tokenizer.has_tools,
            has_reasoning=tokenizer.output_format.think_start is not None,
            is_batched=facts.is_batched,
            chat_template=default_template(facts.tokenizer),
            authors_sampling=await asyncio.to_thread(authors_sampling, path),
        )
        for note in tokenizer.notes:
            logger.info("model %s: its chat template %s", name, note)
        return cls(worker, tokenizer, grammars, info)

    @property
    def output_format(self) -> OutputFormat:
        """How this model marks reasoning and tool calls in its output."""
        return self._tokenizer.output_format

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Token ids of a text. Blocks for a time proportional to its length."""
        return self._tokenizer.encode(text)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, including that of special tokens."""
        return self._tokenizer.decode(token_ids)

    async def render(
        self,
        prompt: Prompt,
        tools: Sequence[Tool] = (),
        template_kwargs: JSONObject | None = None,
        *,
        continues: bool = False,
    ) -> RenderedPrompt:
        """Render and tokenise a prompt, off the event loop. A `RenderedPrompt` is returned unchanged.

        Args:
            template_kwargs: variables for the chat template; they override those of the engine's config.
            continues: the chat ends with a message of the assistant, with which the completion goes on.

        Raises:
            InvalidRequest: the prompt is empty, holds unknown token ids, or the template refuses it.
            ContextLengthExceeded: the prompt leaves no room for a single completion token.
            EngineClosed: the engine was closed or its worker ended.
        """
        if isinstance(prompt, RenderedPrompt):
            return prompt
        rendered = await self._off_loop(
            partial(self._render, prompt, tuple(tools), template_kwargs or {}, continues=continues)
        )
        num_tokens, context_length = len(rendered.token_ids), self.model_info.context_length
        if num_tokens == 0:
            raise InvalidRequest(
                "The prompt is empty: it has no token that the model could go on from.", param=_param_of(prompt)
            )
        if num_tokens >= context_length:
            raise ContextLengthExceeded(num_tokens, context_length)
        return rendered

    def _render(
        self,
        prompt: str | Sequence[int] | Sequence[Message] | TextPrompt,
        tools: tuple[Tool, ...],
        template_kwargs: JSONObject,
        *,
        continues: bool,
    ) -> RenderedPrompt:
        if isinstance(prompt, TextPrompt):
            return self._tokenizer.text_prompt(prompt)
        if not isinstance(prompt, str) and prompt and all(isinstance(item, Message) for item in prompt):
            messages = cast("Sequence[Message]", prompt)
            return self._tokenizer.render(messages, tools, template_kwargs, continues=continues)
        text = prompt if isinstance(prompt, str) else tuple(cast("Sequence[int]", prompt))
        return RenderedPrompt(self._tokenizer.text_prompt(TextPrompt(text)).token_ids)

    async def constraint_for(self, prompt: RenderedPrompt, output: OutputSpec) -> Constraint:
        """The grammar that constrains the completion and the format in which it is parsed.

        Grammars are compiled off the event loop and cached.

        Raises:
            InvalidRequest: the schema cannot be enforced; names the keyword.
        """
        if not prompt.is_chat:
            form, answer = OutputFormat(continues_text=True), output.response_format
            grammar = None if answer is None else await self._off_loop(partial(self._grammars.of_text, answer))
            return Constraint(grammar, form)
        opened, kind = prompt.starts_in_reasoning, output.kind_for(self.output_format)
        if kind is ConstraintKind.NONE:  # nothing to compile, so no need for a thread
            return self._free[opened, prompt.continues_text]
        if prompt.continues_text and not opened:
            raise begun_answer(output)
        return await self._off_loop(partial(self._grammars.constraint, output, starts_in_reasoning=opened))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Run `work` in the executor. Any exception becomes an error of the request that it is for.

        Raises:
            PeriscopeError: the work raised it. Other exceptions become GenerationFailed.
            EngineClosed: the engine was closed.
        """
        if not self.is_alive:
            raise EngineClosed("This model is no longer loaded.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except Exception as error:  # noqa: BLE001 - a template, a tokenizer or a compiler may raise anything
            failure = as_generation_failure(error)
        raise failure

    def generate_stream(
        self,
        prompt: Prompt,
        params: GenerationParams = GenerationParams(),
        output: OutputSpec = OutputSpec(),
        *,
        constraint: Constraint | None = None,
    ) -> GenerationStream:
        """Return a stream of chunks, which is the cancellation handle too. Iterating over it starts the generation.

        `max_tokens` is limited to what the context leaves. Iterating raises RequestError when the prompt or the schema
        cannot be used (see `render`, `constraint_for`), EngineClosed when the worker has ended, GenerationFailed when
        the model failed.

        Args:
            output: tools, tool choice and response format.
            constraint: the result of `constraint_for` for `output`, if the caller has it already.
        """

        async def prepared() -> PreparedRequest:
            rendered = await self.render(prompt, output.tools)
            return limited(rendered, constraint or await self.constraint_for(rendered, output))

        def limited(rendered: RenderedPrompt, constrained_by: Constraint) -> PreparedRequest:
            room = self.model_info.context_length - len(rendered.token_ids)
            asked = params.max_tokens
            bounded = params if asked is not None and asked <= room else replace(params, max_tokens=room)
            thinking = self._thinking_rules(rendered, output, constrained_by)
            return PreparedRequest(rendered, bounded, constrained_by.grammar, thinking)

        def prepare() -> PreparedRequest | Coroutine[Any, Any, PreparedRequest]:
            if isinstance(prompt, RenderedPrompt) and constraint is not None:
                return limited(prompt, constraint)  # there is nothing to wait for
            return prepared()

        def submit(prepared: PreparedRequest) -> TokenStream:
            prompt = prepared.prompt
            tokens = TokenPrompt(
                prompt.token_ids,
                prompt.checkpoints,
                prompt.images,
                end_token_ids=prompt.end_token_ids,
                continues_text=prompt.continues_text,
                prediction=prompt.prediction,
            )
            return self.submit(tokens, prepared.params, prepared.grammar, prepared.thinking)

        return GenerationStream(prepare, submit, self.end_thinking, self._clock)

    def _thinking_rules(
        self, prompt: RenderedPrompt, output: OutputSpec, constraint: Constraint
    ) -> ThinkingRules | None:
        thinking = self._tokenizer.thinking
        if thinking is None or not prompt.is_chat:
            return None
        is_harmony = self.output_format.tool_call_style is ToolCallStyle.HARMONY
        return ThinkingRules(
            thinking,
            is_open=prompt.starts_in_reasoning,
            is_once=constraint.grammar is not None and not is_harmony,
            may_call=bool(output.offered),
        )

    async def generate(
        self,
        prompt: Prompt,
        params: GenerationParams = GenerationParams(),
        output: OutputSpec = OutputSpec(),
    ) -> GenerationOutput:
        """Generate the whole completion. Cancelling the awaiting task frees its row.

        Raises:
            PeriscopeError: as iterating over `generate_stream` does.
        """
        async with self.generate_stream(prompt, params, output) as stream:
            chunks = [chunk async for chunk in stream]
            return GenerationOutput(
                tokens=tuple(token for chunk in chunks for token in chunk.token_ids),
                text="".join(chunk.text for chunk in chunks),
                finish_reason=chunks[-1].finish_reason or FinishReason.CANCELLED,
                logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
                stats=stream.stats,
            )

    async def close(self) -> None:
        """Free the model and end its thread. Idempotent. Running generations fail with EngineClosed."""
        await super().close()
        self._executor.shutdown(wait=False)


def _param_of(prompt: Prompt) -> str:
    return prompt.param if isinstance(prompt, TextPrompt) else "messages"
