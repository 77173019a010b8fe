"""A vision-language model and its batch: the facade over mlx-vlm that contains all workarounds for its versions.

Worker thread only. A row is one image and an instruction. Greedy, because mlx-vlm 0.7 has one sampler per batch.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_vlm import load, prepare_inputs
from mlx_vlm.generate import BatchGenerator
from mlx_vlm.prompt_utils import apply_chat_template

from periscope.core import FinishReason
from periscope.engine.config import EngineConfig
from periscope.engine.loading.loader import LIBRARY_LOCK, LoadProgress, materialize, prepare_libraries
from periscope.engine.multimodal.processor import SAMPLE_IMAGE, pil_image
from periscope.engine.multimodal.tiles import limit_tiles
from periscope.engine.text.detokenizer import Detokenizer, FastDetokenizer, SlowDetokenizer
from periscope.engine.worker.commands import ImagePrompt
from periscope.engine.worker.contracts import KeepsNothing, Sampled
from periscope.engine.worker.reports import STARTED
from periscope.errors import InvalidRequest, ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from periscope.engine.device.turn import DeviceTurn
    from periscope.engine.worker.commands import Submit
    from periscope.engine.worker.stream import TokenStream

logger = logging.getLogger(__name__)

#: Longer than any caption prompt: mlx-vlm 0.7 gives wrong logits (qwen3_vl) or raises (gemma3) when prompts of
#: unequal length are prefilled together or an image prompt is cut into chunks. Exit: mlx-vlm#1668 and its kin.
WHOLE_PROMPT_TOKENS = 1 << 20
_HEALTH_CHECK_PROMPT = ImagePrompt(SAMPLE_IMAGE, "Describe the image.")
#: Architectures whose pictures are described one at a time. Their attention is not causal, and mlx-vlm 0.7 then masks
#: no padding: beside a longer row, a row gets other tokens than alone. Exit: their test passes without them.
ONE_AT_A_TIME = frozenset({"paligemma"})


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An image and its prompt as arrays, ready for the model. `row` is the id that `admit` returned."""

    row: int
    max_tokens: int
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An image that waits for a place in the batch. `stream` is None in `check_health`."""

    row: int
    prompt: ImagePrompt
    max_tokens: int
    stream: TokenStream | None

    def report_start(self) -> None:
        if self.stream is not None:
            self.stream.put(STARTED)


class VisionBatch(KeepsNothing):
    """Facade over mlx-vlm's `BatchGenerator`. Images wait here, first come, first served, until it has room.

    One image per step is then encoded. `BatchGenerator` alone would encode all queued images, shortest prompts first:
    running rows would stall meanwhile, and the features of all images would take memory.
    """

    def __init__(self, model: Any, processor: Any, *, max_rows: int) -> None:
        self._model = model
        self._processor = processor
        self._max_rows = max_rows
        self._num_rows = 0
        self._pending: deque[_Waiting] = deque()
        self._prepared: _Prepared | None = None
        self._failed: list[Sampled] = []
        self._row_of_uid: dict[int, int] = {}
        self._removed_uids: list[int] = []  # to be removed from the generator by the next step
        self._generator = BatchGenerator(
            model.language_model,
            processor,
            completion_batch_size=max_rows,
            prefill_batch_size=1,
            prefill_step_size=WHOLE_PROMPT_TOKENS,
            compute_logprobs=False,
            greedy_sampling=True,
            stream=mx.default_stream(mx.default_device()),
        )
        # mlx-vlm 0.7 changes the process's wired limit while a generator lives, and `close` only restores the previous
        # value. Several generators, closed in any order, would leave a wrong limit, so it is restored at once.
        self._generator.close()

    def admit(self, submit: Submit) -> int:
        if not isinstance(submit.prompt, ImagePrompt):
            raise InvalidRequest("A captioner takes one image and an instruction.", param="messages")
        return self.queue(submit.prompt, submit.params.max_tokens or 1, submit.stream)

    def queue(self, prompt: ImagePrompt, max_tokens: int, stream: TokenStream | None = None) -> int:
        """Queue an image and return its row id. `stream` gets `STARTED` when work on the image starts."""
        self._num_rows += 1
        self._pending.append(_Waiting(self._num_rows, prompt, max_tokens, stream))
        return self._num_rows

    def prepare(self) -> None:
        """Preprocess the next image and its prompt if the batch has room for another row.

        `STARTED` is sent before the work, so that it is sent for an image that makes the model hang, too.
        """
        if self._pending and self._prepared is None and len(self._row_of_uid) < self._max_rows:
            picture = self._pending.popleft()
            picture.report_start()
            try:
                self._prepared = _Prepared(picture.row, picture.max_tokens, self._inputs_of(picture.prompt))
            except Exception as error:  # noqa: BLE001 - fails this image only
                self._failed.append(Sampled(picture.row, 0, error=error))

    @property
    def has_work(self) -> bool:
        return bool(self._pending or self._prepared or self._failed or self._row_of_uid or self._removed_uids)

    def step(self) -> list[Sampled]:
        for uid in self._removed_uids:
            self._generator.remove(uid)
        self._removed_uids.clear()
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            try:
                self._row_of_uid[self._insert(prepared)] = prepared.row
            except Exception as error:  # noqa: BLE001 - fails this image only
                self._failed.append(Sampled(prepared.row, 0, error=error, is_model_failure=True))
            failed, self._failed = self._failed, []
            return failed
        failed, self._failed = self._failed, []
        _, responses = self._generator.next()
        return failed + [self._sampled(response) for response in responses]

    def _inputs_of(self, prompt: ImagePrompt) -> dict[str, Any]:
        config = self._model.config
        text = apply_chat_template(self._processor, config, prompt.text, num_images=1, enable_thinking=False)
        return prepare_inputs(
            self._processor,
            images=[pil_image(prompt.image)],
            prompts=text,
            image_token_index=getattr(config, "image_token_index", None),
        )

    def _insert(self, prepared: _Prepared) -> int:
        """Encode the image and queue its prompt for prefill; returns its uid in the generator."""
        inputs = prepared.inputs
        ids, pixels = inputs.pop("input_ids"), inputs.pop("pixel_values", None)
        mask = inputs.pop("attention_mask", None)
        embeddings = self._model.get_input_embeddings(ids, pixels, mask=mask, **inputs)
        features = {name: value for name, value in embeddings.to_dict().items() if value is not None}
        features = {**_positions_in(self._model.language_model), **features}
        mx.eval(list(features.values()))
        (uid,) = self._generator.insert(
            [ids.squeeze(0).tolist()],
            max_tokens=[prepared.max_tokens],
            prompt_kwargs=[{**inputs, **features}],
            logits_processors=[None],
        )
        return int(uid)

    def _sampled(self, response: Any) -> Sampled:
        reason = FinishReason(response.finish_reason) if response.finish_reason else None
        row = self._row_of_uid[response.uid] if reason is None else self._row_of_uid.pop(response.uid)
        is_eos = reason is FinishReason.STOP
        return Sampled(row=row, token_id=int(response.token), finish_reason=reason, is_eos=is_eos)

    @property
    def working_bytes(self) -> int:
        return 0  # the rows of a few images, which the model's reservation covers

    @property
    def prompt_cache_bytes(self) -> int:
        return 0  # captions are cached as text

    @property
    def num_preemptions(self) -> int:
        return 0  # its rows keep their memory

    def clear_prompt_cache(self) -> None:
        return

    def end_thinking(self, row_id: int) -> None:  # noqa: ARG002 - captions are asked for without thinking
        return

    def remove(self, rows: Sequence[int]) -> None:
        removed = set(rows)
        self._pending = deque(picture for picture in self._pending if picture.row not in removed)
        if self._prepared is not None and self._prepared.row in removed:
            self._prepared = None
        for uid in [uid for uid, row in self._row_of_uid.items() if row in removed]:
            self._removed_uids.append(uid)
            del self._row_of_uid[uid]

    def close(self) -> None:
        self._pending.clear()
        self._prepared = None


def _positions_in(language_model: Any) -> dict[str, mx.array]:
    """Positions of the prompt that the model keeps, to go with its row.

    mlx-vlm 0.7 leaves those of GLM-OCR and PaddleOCR-VL in the model, where the next image's replace them while this
    row still needs them. Exit: `get_input_embeddings` returns them, as Qwen's does.
    """
    kept = {name: getattr(language_model, f"_{name}", None) for name in ("position_ids", "rope_deltas")}
    if kept["position_ids"] is not None:
        language_model._position_ids = None  # noqa: SLF001 - it has no other way to forget them
    return {name: value for name, value in kept.items() if value is not None}


class VisionLanguageModel:
    """Owns the weights and the processor of a loaded vision-language model. A `LoadedModel`; worker thread only."""

    def __init__(self, model: Any, processor: Any, config: EngineConfig) -> None:
        self._model = model
        self._processor = processor
        self._max_rows = 1 if model.config.model_type in ONE_AT_A_TIME else config.max_num_seqs

    @classmethod
    def load(cls, path: Path, config: EngineConfig, turn: DeviceTurn, progress: LoadProgress) -> VisionLanguageModel:
        """Load weights and processor from a folder, and see that they describe a picture. Blocks.

        Raises:
            ModelLoadError: mlx-vlm loads the model, but fails at a picture.
            Exception: whatever mlx-vlm raises while it loads.
        """
        prepare_libraries()
        # The processors of some families, DeepSeek-OCR's among them, print; standard output may be for JSON.
        with LIBRARY_LOCK, redirect_stdout(sys.stderr):
            model, processor = load(str(path), lazy=True)
        if config.max_image_tiles is not None:
            limit_tiles(getattr(processor, "image_processor", None), config.max_image_tiles)
        materialize(model, config.dtype, turn, progress)
        loaded = cls(model, processor, config)
        try:
            loaded._describe_sample(turn.acquire)
        except Exception as error:
            logger.exception("captioner %s was loaded, but fails at a picture", path.name)
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ModelLoadError(
                f"{path.name} (architecture {model.config.model_type}) was loaded, but mlx-vlm {version('mlx-vlm')} "
                f"fails at a picture: {said}. Name another captioner, or free memory if it lacks that."
            ) from None
        return loaded

    @property
    def facts(self) -> None:
        return None

    @property
    def networks(self) -> Sequence[Any]:
        return [self._model]

    def new_batch(self) -> VisionBatch:
        with LIBRARY_LOCK:  # it changes and restores the wired limit, which must not overlap
            return VisionBatch(self._model, self._processor, max_rows=self._max_rows)

    def check_health(self) -> None:
        self._describe_sample(nullcontext)

    def _describe_sample(self, turn: Callable[[], AbstractContextManager[None]]) -> None:
        """Generate one token for a small gray image in a batch of its own, each step within a turn of its own.

        Raises:
            Exception: the model does not work.
        """
        batch = self.new_batch()
        batch.queue(_HEALTH_CHECK_PROMPT, 1)
        while batch.has_work:
            batch.prepare()
            with turn():
                results = list(batch.step())
            for sampled in results:
                if sampled.error is not None:
                    raise sampled.error

    def new_detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        tokenizer = getattr(self._processor, "tokenizer", self._processor)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            return FastDetokenizer(backend, after)
        streaming = copy.copy(self._processor.detokenizer)
        streaming.reset()
        return SlowDetokenizer(streaming, after)
