"""A client's request for embeddings, in no dialect, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

#: Texts of one request, and tokens of all its texts together: OpenAI's limits.
MAX_INPUTS: Final = 2048
MAX_INPUT_TOKENS: Final = 300_000

#: A text, or its token ids, to which no special tokens are added.
EmbeddingInput: TypeAlias = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to embed.

    Attributes:
        id: request id, unique in the process (`new_id`).
        model: configured name or alias; "" and "default" mean the first embedding model of models.yaml.
        inputs: at least one and at most `MAX_INPUTS`; none is empty.
        dimensions: the vectors are cut to so many numbers; None = all.
        prompt_name: which of the model's prompts goes before each text; None = the model's default, if it has one.
        truncate_tokens: longer texts are cut to so many tokens, -1 to as many as the model takes; None = refused.
    """

    id: str
    model: str
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    prompt_name: str | None = None
    truncate_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each input, in order.

    Attributes:
        vectors: the numbers of each vector as float32 in little-endian order.
        num_tokens: of all texts, special tokens included.
    """

    vectors: tuple[bytes, ...]
    num_tokens: int
