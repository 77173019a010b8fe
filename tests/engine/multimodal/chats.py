"""Chats with pictures for multimodal models, as requests for a batch and as mlx-vlm itself answers them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx
from mlx_vlm import load, prepare_inputs
from mlx_vlm.models.cache import make_prompt_cache

from periscope.core import GenerationParams, Image, Message, Role, TextPart
from periscope.engine.multimodal.processor import pil_image
from periscope.engine.text.chat_template import ChatTokenizer, RenderedPrompt
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit, TokenPrompt
from tests.engine.driving import NOBODY

Content: TypeAlias = str | Image
#: Answers of random weights, which would often end at once.
NO_END = ((257, -100.0),)


def picture(seed: int, width: int = 64, height: int = 48) -> Image:
    """Large squares of any colours, so that no two pictures have an embedding in common."""
    colours = [random.Random(f"{seed} {number}").randbytes(3) for number in range(-(-width // 16) * -(-height // 16))]
    rgb = b"".join(colours[y // 16 * -(-width // 16) + x // 16] for y in range(height) for x in range(width))
    return Image(rgb, width, height, width, height, hashlib.sha256(rgb).hexdigest())


def user(*content: Content) -> Message:
    return Message(Role.USER, tuple(TextPart(part) if isinstance(part, str) else part for part in content))


def assistant(text: str) -> Message:
    return Message(Role.ASSISTANT, (TextPart(text),))


def tokenizer_of(model: TextModel) -> ChatTokenizer:
    facts = model.facts
    return ChatTokenizer(facts.tokenizer, {}, wants_checkpoints=facts.wants_checkpoints, image_tokenizer=facts.images)


def asked(prompt: RenderedPrompt, num_tokens: int = 12, **params: object) -> Submit:
    """Greedy, never at its end before `num_tokens`."""
    tokens = TokenPrompt(prompt.token_ids, prompt.checkpoints, prompt.images)
    greedy = {"temperature": 0.0, "max_tokens": num_tokens, "logit_bias": NO_END}
    return Submit(tokens, GenerationParams(**(greedy | params)), NOBODY)  # type: ignore[arg-type]


def as_mlx_vlm_answers(path: Path, text: str, images: Sequence[Image], num_tokens: int) -> tuple[list[int], list[int]]:
    """Prompt and greedy completion by mlx-vlm alone: the prompt at once, then token by token, its own caches and state.

    Args:
        text: of the prompt, with one of the processor's image tokens for each image.
    """
    model, processor = load(str(path))
    inputs = prepare_inputs(processor, images=[pil_image(image) for image in images], prompts=text)
    ids, pixels, mask = (inputs.pop(name, None) for name in ("input_ids", "pixel_values", "attention_mask"))
    features = model.get_input_embeddings(ids, pixels, mask=mask, **inputs).to_dict()
    given = {name: value for name, value in features.items() if value is not None}
    cache, tokens = make_prompt_cache(model.language_model), []
    step, given = ids, {**given, **inputs}
    for _ in range(num_tokens):
        logits = model.language_model(step, cache=cache, **given).logits[:, -1]
        logits[:, 257] -= 100.0
        step, given = mx.argmax(logits, axis=-1)[:, None], {}
        tokens.append(int(step[0, 0].item()))  # type: ignore[arg-type]
    return [int(token) for token in ids[0].tolist()], tokens
