"""A client's request, in no dialect."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from periscope.core.messages import Message
from periscope.core.output_spec import OutputSpec
from periscope.core.params import GenerationParams, check_bounds
from periscope.core.tools import JSONObject
from periscope.errors import InvalidRequest

MAX_CHOICES = 16
#: Of all prompts of a request together.
MAX_COMPLETIONS = 128


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A prompt that is no conversation: the model goes on with it as it stands, without a chat template.

    Attributes:
        source: a text, or the ids of its tokens.
        suffix: the text that stands behind the completion, for a model that fills in the middle; None = nothing does.
        adds_special_tokens: to a text, those with which the tokenizer opens or closes one.
        param: where it stands in the request, for errors (`prompt[3]`).
    """

    source: str | tuple[int, ...] = field(repr=False)
    suffix: str | None = field(default=None, repr=False)
    adds_special_tokens: bool = True
    param: str = "prompt"


class Echo(StrEnum):
    """Whether text prompts come back at the beginning of their completions.

    Attributes:
        PROMPT: before what is generated.
        ALONE: nothing is generated.
    """

    NONE = "none"
    PROMPT = "prompt"
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request of a client, in no dialect.

    Attributes:
        id: request id, unique in the process (`new_id`); also the id the client sees.
        model: configured name or alias; "" and "default" mean the first model of models.yaml.
        output: tools, whether to call them, and the form of the answer.
        messages: the conversation; empty if there are `prompts`.
        continues: the last message is the assistant's, and the answer goes on with its text instead of beginning anew.
        prompts: texts that the model goes on with; empty for a conversation. Their choices are numbered through: those
            of the first prompt, then those of the second.
        echo: for `prompts` only.
        num_choices: completions of each prompt, numbered from 0.
        counts_only: nothing is generated: the answer is `Finished` alone, whose usage has the prompt's tokens.
        prediction: a text that the answer is likely to repeat, which only makes it faster; "" = none.
        template_kwargs: passed to the chat template; they override the model's own (`enable_thinking`, ...).

    Raises:
        InvalidRequest: `n` is out of bounds, or it asks for too many completions.
    """

    id: str
    model: str
    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()
    output: OutputSpec = OutputSpec()
    num_choices: int = 1
    counts_only: bool = False
    template_kwargs: JSONObject = field(default_factory=dict)
    continues: bool = False
    prompts: tuple[TextPrompt, ...] = ()
    echo: Echo = Echo.NONE
    prediction: str = ""

    def __post_init__(self) -> None:
        check_bounds("n", self.num_choices, 1, MAX_CHOICES)
        if self.num_completions > MAX_COMPLETIONS:
            raise InvalidRequest(
                f"{len(self.prompts)} prompts with {self.num_choices} completions each are {self.num_completions} "
                f"completions; at most {MAX_COMPLETIONS} are made at once. Send the prompts in several requests.",
                param="prompt",
            )

    @property
    def num_completions(self) -> int:
        """How many completions the request has, those of all prompts together."""
        return max(1, len(self.prompts)) * self.num_choices


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-3f9c...`; 96 random bits."""
    return f"{prefix}{secrets.token_hex(12)}"
