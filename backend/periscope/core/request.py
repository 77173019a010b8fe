"""A client's request, in no dialect."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from periscope.core.messages import Message
from periscope.core.output_spec import OutputSpec
from periscope.core.params import GenerationParams, check_bounds
from periscope.core.tools import JSONObject

MAX_CHOICES = 16


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request of a client, in no dialect.

    Attributes:
        id: request id, unique in the process (`new_id`); also the id the client sees.
        model: configured name or alias; "" and "default" mean the first model of models.yaml.
        output: tools, whether to call them, and the form of the answer.
        num_choices: completions of the same prompt, numbered from 0.
        counts_only: nothing is generated: the answer is `Finished` alone, whose usage has the prompt's tokens.
        template_kwargs: passed to the chat template; they override the model's own (`enable_thinking`, ...).
    """

    id: str
    model: str
    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()
    output: OutputSpec = OutputSpec()
    num_choices: int = 1
    counts_only: bool = False
    template_kwargs: JSONObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_bounds("n", self.num_choices, 1, MAX_CHOICES)


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-3f9c...`; 96 random bits."""
    return f"{prefix}{secrets.token_hex(12)}"
