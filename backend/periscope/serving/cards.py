"""What clients are told of a model: what is configured, what its files say, and what it can do once loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from periscope.core import DefaultParam, GenerationParams, ModelCard, ModelKind, VisionMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periscope.serving.embeddings import PooledEmbedder
    from periscope.serving.generators import GeneratorFacts
    from periscope.serving.models import ServedEmbedder, ServedModel
    from periscope.status import ModelStatus

#: The params that have defaults, in the order in which they are listed.
_SAMPLING: Final = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("max_tokens", "thinking_budget"),
)


def text_model_card(model: ServedModel, facts: GeneratorFacts | None, status: ModelStatus) -> ModelCard:
    """Pure: what `/v1/models` tells of a text model.

    Args:
        facts: None while the model is not loaded.
    """
    authors = model.files.sampling if facts is None else facts.authors_sampling
    return ModelCard(
        name=model.shown_name,
        aliases=model.own_aliases,
        created=model.created,
        context_length=facts.context_length if facts else model.context_length,
        vision=model.vision,
        has_tools=facts.has_tools if facts else None,
        has_reasoning=facts.has_reasoning if facts else None,
        is_batched=facts.is_batched if facts else None,
        state=status.state,
        max_running=status.max_running,
        kv_bits=status.kv_bits,
        chat_template=facts.chat_template if facts else None,
        files=model.files,
        error=status.error,
        sampling=default_sampling(model.params, authors),
    )


def embedder_card(model: ServedEmbedder, engine: PooledEmbedder | None, status: ModelStatus) -> ModelCard:
    """Pure: what `/v1/models` tells of an embedding model.

    Args:
        engine: None while the model is not loaded.
    """
    return ModelCard(
        name=model.name,
        aliases=model.aliases,
        created=model.created,
        context_length=model.max_tokens if engine is None else engine.max_tokens,
        vision=VisionMode.DISABLED,
        has_tools=False,
        has_reasoning=False,
        is_batched=True,
        state=status.state,
        max_running=status.max_running,
        files=model.files,
        error=status.error,
        kind=ModelKind.EMBEDDING,
        embedding_size=None if engine is None else engine.size,
    )


def default_sampling(configured: GenerationParams, authors: GenerationParams) -> Mapping[str, DefaultParam]:
    """Pure: what a request is sampled with that leaves it open, and where that is said."""
    found: dict[str, DefaultParam] = {}
    for name in _SAMPLING:
        for params, source in ((configured, "models.yaml"), (authors, "generation_config.json")):
            if name not in found and (value := getattr(params, name)) is not None:
                found[name] = DefaultParam(value, source)
    return found
