"""EmbeddingEngine: turns texts into vectors. Used on the event loop; the model lives on its worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from periscope.core import MAX_INPUT_TOKENS, EmbeddingInput, EmbeddingRequest, Embeddings, GenerationParams
from periscope.engine.config import EngineConfig
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.loading.loader import LIBRARY_LOCK, LoadProgress, find_on_disk
from periscope.engine.text.prompt_bounds import PromptBounds
from periscope.engine.worker.commands import EmbeddingPrompt
from periscope.engine.worker.failures import as_generation_failure
from periscope.engine.worker.host import HostedEngine, RunningWorker, start_worker
from periscope.errors import ContextLengthExceeded, EngineClosed, InputTooLong, InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from periscope.engine.embedding.embedding_batch import EmbeddingFacts, EmbeddingModel

T = TypeVar("T")

#: Texts that are tokenised between two looks at whether the request was cancelled.
_TEXTS_AT_ONCE = 64


class EmbeddingEngine(HostedEngine):
    """Owns a worker with an embedding model, and one thread that tokenises. Requests of all callers share its batch."""

    def __init__(self, worker: RunningWorker[EmbeddingFacts], path: Path, config: EngineConfig) -> None:
        super().__init__(worker)
        self.path = path
        self.facts = worker.facts
        self._is_matryoshka = self.facts.files.is_matryoshka if config.matryoshka is None else config.matryoshka
        self._bounds = PromptBounds(self.facts.tokenizer, self.max_tokens + 1)
        # One thread: a tokenizer of transformers holds the settings of the call under way.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="periscope-tokenise")

    def __repr__(self) -> str:
        return f"<EmbeddingEngine {self.path.name} alive={self.is_alive} rows={self.num_rows}>"

    @classmethod
    async def load(
        cls,
        model: str,
        config: EngineConfig | None = None,
        *,
        turn: DeviceTurn | None = None,
        progress: LoadProgress = lambda _done, _total: None,
    ) -> Self:
        """Load an embedding model from a folder or the hub cache; never downloads.

        Raises:
            ModelLoadError: it is not on this disk, or cannot be loaded as an embedding model.
        """
        settings = config or EngineConfig()
        path = find_on_disk(model, settings.revision)
        shared_turn = turn or DeviceTurn()

        def load_model() -> EmbeddingModel:
            with LIBRARY_LOCK:  # importing the libraries takes seconds
                from periscope.engine.embedding.embedding_batch import EmbeddingModel
            return EmbeddingModel.load(path, settings, shared_turn, progress)

        return cls(
            await start_worker(settings.name_of(model), load_model, shared_turn, is_background=True), path, settings
        )

    @property
    def max_tokens(self) -> int:
        """Tokens of one text, special tokens included."""
        return self.facts.files.max_tokens

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return self.facts.size

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each input. Cancelling frees its row before the next forward pass.

        Raises:
            InvalidRequest: a token id, the number of dimensions or the name of a prompt is not the model's.
            InputTooLong: a text, or all together, have too many tokens.
            GenerationFailed, EngineClosed: the model failed, or was unloaded.
        """
        size = self._checked_dimensions(request.dimensions)
        texts = await self._tokenised(request)
        stream = self.submit(EmbeddingPrompt(texts), GenerationParams())
        try:
            vectors = b"".join([chunk.vectors async for chunk in stream])
        finally:
            stream.cancel()
        cut = partial(_cut, vectors, len(texts), size, is_normalized=self.facts.files.is_normalized)
        return Embeddings(await self._off_loop(cut), num_tokens=sum(map(len, texts)))

    def _checked_dimensions(self, asked: int | None) -> int:
        full = self.size
        if asked is None or asked == full:
            return full
        if not 1 <= asked <= full:
            raise InvalidRequest(
                f"`dimensions` is {asked}, but the vectors of this model have {full} numbers. Ask for 1 to {full}, or "
                "leave it out.",
                param="dimensions",
            )
        if not self._is_matryoshka:
            raise InvalidRequest(
                f"`dimensions` is {asked}, but nothing says that this model was trained for shorter vectors than its "
                f"{full} numbers. Leave it out, or set `params.matryoshka: true` for the model in models.yaml.",
                param="dimensions",
            )
        return asked

    async def _tokenised(self, request: EmbeddingRequest) -> tuple[tuple[int, ...], ...]:
        prompt = self._prompt(request.prompt_name)
        limit = self._limit(request.truncate_tokens)
        texts: list[tuple[int, ...]] = []
        num_tokens = 0
        is_alone = len(request.inputs) == 1
        places = ["input" if is_alone else f"input[{index}]" for index in range(len(request.inputs))]
        for start in range(0, len(request.inputs), _TEXTS_AT_ONCE):
            part = slice(start, start + _TEXTS_AT_ONCE)
            inputs = list(zip(places[part], request.inputs[part], strict=True))
            texts += await self._off_loop(partial(self._encoded, inputs, prompt, limit))
            num_tokens = sum(map(len, texts))
            if num_tokens > MAX_INPUT_TOKENS:
                raise InputTooLong(
                    f"`input` has at least {num_tokens} tokens in all; at most {MAX_INPUT_TOKENS} are taken at once. "
                    "Send it in several requests.",
                    param="input",
                    num_tokens=num_tokens,
                    limit=MAX_INPUT_TOKENS,
                )
        return tuple(texts)

    def _prompt(self, name: str | None) -> str:
        files = self.facts.files
        if name is None:
            return files.prompts[files.default_prompt] if files.default_prompt is not None else ""
        if name not in files.prompts:
            known = ", ".join(files.prompts) or "none"
            raise InvalidRequest(
                f"`prompt_name` is {name[:100]!r}, which is none of this model's prompts. Known: {known}.",
                param="prompt_name",
            )
        return files.prompts[name]

    def _limit(self, asked: int | None) -> int | None:
        """Tokens that a text is cut to; None = a longer one than the model takes is refused."""
        if asked is None or asked == -1:
            return asked and self.max_tokens
        least = self.facts.tokenizer.num_special_tokens_to_add() + 1
        if not least <= asked <= self.max_tokens:
            raise InvalidRequest(
                f"`truncate_prompt_tokens` is {asked}; it must be -1 (as many as the model takes) or {least} to "
                f"{self.max_tokens}.",
                param="truncate_prompt_tokens",
            )
        return asked

    def _encoded(
        self, inputs: Sequence[tuple[str, EmbeddingInput]], prompt: str, limit: int | None
    ) -> list[tuple[int, ...]]:
        """Token ids of some inputs, each with its place in the request."""
        encoded = []
        for place, given in inputs:
            tokens = self._encoded_text(prompt + given, place, limit) if isinstance(given, str) else given[:limit]
            if not isinstance(given, str):
                self._check_ids(given, place)
            if not tokens:
                raise InvalidRequest(f"`{place}` has no tokens. Leave it out.", param=place)
            if len(tokens) > self.max_tokens:
                raise self._too_long(place, len(tokens))
            encoded.append(tuple(tokens))
        return encoded

    def _encoded_text(self, text: str, place: str, limit: int | None) -> Sequence[int]:
        text = text.lower() if self.facts.files.is_lowered else text
        if limit is not None:
            return self._tokens(text, truncation=True, max_length=limit)
        try:
            return self._bounds.encode(self._tokens, text)
        except ContextLengthExceeded as error:
            raise self._too_long(place, error.num_prompt_tokens, "at least ") from None

    def _tokens(self, text: str, **settings: Any) -> Sequence[int]:
        encoded = self.facts.tokenizer(text, return_attention_mask=False, return_token_type_ids=False, **settings)
        return list(encoded["input_ids"])

    def _check_ids(self, token_ids: Sequence[int], place: str) -> None:
        least, most = min(token_ids), max(token_ids)
        if least < 0 or most >= self.facts.vocab_size:
            raise InvalidRequest(
                f"`{place}` has the token id {least if least < 0 else most}, which is outside of 0 to "
                f"{self.facts.vocab_size - 1}. Send ids of this model's own tokenizer, or the text.",
                param=place,
            )

    def _too_long(self, place: str, num_tokens: int, least: str = "") -> InputTooLong:
        return InputTooLong(
            f"`{place}` has {least}{num_tokens} tokens, but this model takes {self.max_tokens}. Send it in "
            "pieces, or set `truncate_prompt_tokens` to -1 to have only its beginning embedded.",
            param=place,
            num_tokens=num_tokens,
            limit=self.max_tokens,
        )

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Run `work` on the engine's thread. Any exception becomes an error of the request that it is for."""
        if not self.is_alive:
            raise EngineClosed("This model is no longer loaded.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything
            failure = as_generation_failure(error)
        raise failure

    async def close(self) -> None:
        """Free the model and end its threads. Idempotent. Running requests fail with EngineClosed."""
        await super().close()
        self._executor.shutdown(wait=False)


def _cut(vectors: bytes, num_texts: int, size: int, *, is_normalized: bool) -> tuple[bytes, ...]:
    """The vectors one by one, cut to `size` numbers and then of unit length again if they were."""
    rows = np.frombuffer(vectors, "<f4").reshape(num_texts, -1)
    if size < rows.shape[1]:
        rows = rows[:, :size]
        if is_normalized:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return tuple(row.tobytes() for row in np.ascontiguousarray(rows, "<f4"))
