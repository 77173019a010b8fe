"""Parts that fail at random, in the places of those that do not. Every fault is one that the real part can have."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import JSONObject, Tell, Waiting, WaitStatus
from periscope.engine import EngineConfig
from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.loading.loader import read_model_config
from periscope.engine.structured.constraint import Constraint
from periscope.engine.structured.grammars import Grammars
from periscope.engine.structured.matcher import Grammar, Matcher
from periscope.engine.text.detokenizer import Detokenizer
from periscope.engine.text_model import TextModel
from periscope.engine.worker.host import HostedEngine, start_worker
from periscope.errors import CaptionFailed, GenerationFailed, ModelLoadError, ModelUnavailable, ServerBusy
from periscope.serving.generation import LocalGenerator
from periscope.vision.captioner import CaptionerId, CaptionRequest

CONFIG = EngineConfig(max_num_seqs=8, prefill_chunk_size=128, prompt_cache_bytes=2**20)
#: What a captioner's faults become in the prompt, where they become a marker.
CAPTIONER_FAULTS: dict[str, Callable[[], Exception | CaptionFailed]] = {
    "down": lambda: ModelUnavailable("The captioner is down."),
    "bug": lambda: ZeroDivisionError("a captioner's bug"),
    "unreadable": lambda: CaptionFailed("the captioner returned nothing"),
}


class Dice:
    """Owns the faults' random numbers and counts what fell. Any thread. Weighted only while it is switched on."""

    def __init__(self, seed: int) -> None:
        self.is_on = False
        self.fallen: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def falls(self, kind: str, probability: float) -> bool:
        with self._lock:
            if not self.is_on or self._random.random() >= probability:
                return False
            self.fallen[kind] += 1
            return True


class ChaoticNetwork(nn.Module):  # type: ignore[misc]  # mlx tells no types
    """Out of memory in a prefill or a decode step now and then; seldom the device is lost for a while."""

    def __init__(self, inside: Any, dice: Dice) -> None:
        super().__init__()
        self.inside = inside
        self._dice = dice
        self._num_lost_calls = 0

    @property
    def layers(self) -> Any:
        return self.inside.layers

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        if self._num_lost_calls:
            self._num_lost_calls -= 1
            raise RuntimeError("[METAL] Command buffer execution failed: device lost")
        if self._dice.falls("device", 0.0005):
            self._num_lost_calls = 12
        kind, probability = ("prefill", 0.03) if inputs.shape[1] > 1 else ("decode", 0.01)
        if self._dice.falls(kind, probability):
            raise RuntimeError("[metal::malloc] out of memory")
        logits: mx.array = self.inside(inputs, cache=cache)
        return logits


class ChaoticPromptCache(PromptCache):
    """Neither taking in nor handing out is certain."""

    def __init__(self, max_bytes: int, dice: Dice) -> None:
        super().__init__(max_bytes)
        self._dice = dice

    def keep(self, tokens: Sequence[int], caches: LayerCaches) -> None:
        if self._dice.falls("keep", 0.05):
            raise RuntimeError("[metal::malloc] out of memory")
        super().keep(tokens, caches)

    def fetch(self, key: int, num_tokens: int) -> LayerCaches | None:
        if self._dice.falls("fetch", 0.02):
            raise RuntimeError("[metal::malloc] out of memory")
        return super().fetch(key, num_tokens)


class ChaoticDetokenizer:
    """Where a stream gets its text: a token may turn out undecodable in the middle of an answer."""

    def __init__(self, inside: Detokenizer, dice: Dice) -> None:
        self._inside = inside
        self._dice = dice

    def feed(self, token_id: int) -> str:
        if self._dice.falls("stream", 0.003):
            raise ValueError("a token without text")
        return self._inside.feed(token_id)

    def finish(self) -> str:
        return self._inside.finish()


class ChaoticTextModel(TextModel):
    """A text model whose rows get chaotic detokenizers."""

    dice: Dice

    def new_detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        return ChaoticDetokenizer(super().new_detokenizer(after), self.dice)


class ChaoticGrammars:
    """A compiler whose grammars may turn out too complex while a model writes."""

    def __init__(self, inside: Grammars, dice: Dice) -> None:
        self._inside = inside
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        compile_ = getattr(self._inside, name)

        def compiled(*args: Any, **kwargs: Any) -> Constraint:
            if self._dice.falls("compile", 0.06):
                raise MemoryError("the grammar's automaton")
            constraint: Constraint = compile_(*args, **kwargs)
            if constraint.grammar is None:
                return constraint
            grammar: Any = ChaoticGrammar(constraint.grammar, self._dice)
            return replace(constraint, grammar=grammar)

        return compiled


class ChaoticGrammar:
    def __init__(self, inside: Grammar, dice: Dice) -> None:
        self._inside = inside
        self._dice = dice

    def new_matcher(self) -> ChaoticMatcher:
        return ChaoticMatcher(self._inside.new_matcher(), self._dice)


class ChaoticMatcher:
    def __init__(self, inside: Matcher, dice: Dice) -> None:
        self._inside = inside
        self._dice = dice

    @property
    def excluded_bits(self) -> NDArray[np.uint32] | None:
        return self._inside.excluded_bits

    def allowed_bits(self, num_left: int) -> NDArray[np.uint32]:
        if self._dice.falls("grammar", 0.01):
            raise GenerationFailed("The output's grammar failed: too many states.")
        return self._inside.allowed_bits(num_left)

    def consume(self, token_id: int) -> None:
        self._inside.consume(token_id)


class ChaoticCaptioner:
    """Describes by size; may be busy, down, buggy, or have nothing to say. `forced` is the fault it always has."""

    def __init__(self, dice: Dice) -> None:
        self.forced: str | None = None
        self._dice = dice

    @property
    def id(self) -> CaptionerId:
        return CaptionerId("scripted", "1")

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        tell(Waiting(WaitStatus.CAPTIONING))
        await asyncio.sleep(0)
        if self._dice.falls("captioner busy", 0.1):
            raise ServerBusy("The captioner is busy.")
        fault = self.forced
        for kind in CAPTIONER_FAULTS:
            if fault is None and self._dice.falls(f"captioner {kind}", 0.1):
                fault = kind
        if fault is not None:
            error = CAPTIONER_FAULTS[fault]()
            if not isinstance(error, CaptionFailed):
                raise error
            return (error,) * len(request.images)
        return tuple(Caption(f"a thing of {image.width} px", 5) for image in request.images)


async def load_engine(folder: Path, dice: Dice) -> LocalGenerator:
    """A text engine of chaotic parts, which may fail to load, early or late."""
    turn = DeviceTurn()

    def load() -> TextModel:
        if dice.falls("load", 0.3):
            raise OSError("the disk is gone")
        whole = TextModel.load(folder, CONFIG, turn, lambda _done, _total: None)
        network, cache = ChaoticNetwork(whole._model, dice), ChaoticPromptCache(2**20, dice)
        model = ChaoticTextModel(network, whole.tokenizer, CONFIG, prompt_cache=cache)
        model.dice = dice
        return model

    worker = await start_worker("chaos", load, turn)
    try:
        if dice.falls("late load", 0.25):
            raise ModelLoadError("The tokenizer cannot be used.")  # noqa: TRY301 - as the real one does
        config: JSONObject = read_model_config(folder)
        plain = await LocalGenerator._over(worker, "chaos", folder, config, CONFIG)
        grammars: Any = ChaoticGrammars(plain._grammars, dice)
        return LocalGenerator(worker, plain._tokenizer, grammars, plain.model_info)
    except BaseException:
        await HostedEngine(worker).close()
        raise
