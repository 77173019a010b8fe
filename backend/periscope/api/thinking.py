"""How clients bound a model's thinking: every dialect's spelling as a token budget and template variables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from periscope.api.validation import EXPECTED, Effort, Whole, Wire
from periscope.api.wording import kind_of
from periscope.core import JSONObject
from periscope.core.params import check_bounds
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

#: As a budget of a request: thinking without a bound, also where models.yaml has one.
UNBOUNDED: Final = 2**31 - 1
#: Effort -> tokens of thinking. Source: the OpenAI compatibility of Google's Gemini API ("low" 1,024, "medium" 8,192,
#: "high" 24,576), and by the same steps for the others.
EFFORT_BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
    "xhigh": UNBOUNDED,
    "max": UNBOUNDED,
}
#: How templates name the switch of thinking. One that a client turns off holds for models whose template has none, too.
_SWITCHES_OF_TEMPLATES: Final = ("enable_thinking", "thinking")
#: `thinking.type` -> whether the model thinks before it answers; None = as it does by itself.
THINKING_TYPES: Final[Mapping[str, bool | None]] = {
    "enabled": True,
    "adaptive": True,
    "disabled": False,
    "between_tools": False,
    "auto": None,
}


def _thinking(value: Any) -> Any:
    if isinstance(value, bool):
        return {"type": "enabled" if value else "disabled"}
    if value is None or isinstance(value, dict):
        return value
    raise PydanticCustomError(EXPECTED, "an object with a `type`, or true or false")


class ThinkingWire(Wire):
    """`thinking`, as Anthropic, DeepSeek and GLM have it."""

    type: str
    budget_tokens: Whole | None = None
    display: str | None = None


class ReasoningWire(Wire):
    """`reasoning`, as OpenRouter has it."""

    effort: Effort | None = None
    max_tokens: Whole | None = None
    enabled: bool | None = None


class ThinkingFields(Wire):
    """The fields of a chat request that bound thinking.

    `thinking_budget` is Qwen's, `thinking_token_budget` vLLM's, `reasoning_budget` and `reasoning_budget_tokens` are
    llama.cpp's. -1 is no bound in each of them.
    """

    reasoning_effort: Effort | None = None
    thinking_budget: Whole | None = None
    thinking_token_budget: Whole | None = None
    reasoning_budget: Whole | None = None
    reasoning_budget_tokens: Whole | None = None
    reasoning: ReasoningWire | None = None
    thinking: Annotated[ThinkingWire | None, BeforeValidator(_thinking)] = None
    enable_thinking: bool | None = None


_FIELDS: Final = frozenset(ThinkingFields.model_fields)


def thinks(wire: ThinkingWire) -> bool | None:
    """Whether the model is to think; None = as it does by itself.

    Raises:
        InvalidRequest: there is no such type.
    """
    if wire.type not in THINKING_TYPES:
        raise InvalidRequest(
            f"`thinking.type` must be one of {', '.join(THINKING_TYPES)}, got {kind_of(wire.type)}.",
            param="thinking.type",
        )
    return THINKING_TYPES[wire.type]


def tokens_of(param: str, budget: int | None) -> int | None:
    """A budget that a client set, with -1 as no bound; None if it set none.

    Raises:
        InvalidRequest: it is out of bounds; names the field.
    """
    check_bounds(param, budget, -1, UNBOUNDED)
    return UNBOUNDED if budget == -1 else budget


def budget_of_thinking(wire: ThinkingWire) -> int | None:
    """The budget in `thinking`; None if there is none. Clients send 0, too, to leave it to the model.

    Raises:
        InvalidRequest: it is out of bounds, or there is no such type.
    """
    if thinks(wire) is False:
        return 0
    budget = tokens_of("thinking.budget_tokens", wire.budget_tokens)
    return budget or None if wire.type in ("adaptive", "auto") else budget


def thinking_budget(wire: ThinkingFields, template_kwargs: JSONObject) -> int | None:
    """The tokens that thinking may take; None if the client says nothing of it.

    Numbers win over an effort. If there are several, the smallest counts; a switch that is off is a 0.

    Args:
        template_kwargs: the client's own variables, among which Qwen's and Seed's clients have a `thinking_budget`,
            and vLLM's and llama.cpp's the switch `enable_thinking` or `thinking`.

    Raises:
        InvalidRequest: one is out of bounds; names the field.
    """
    if not template_kwargs and _FIELDS.isdisjoint(wire.model_fields_set):
        return None
    budget, effort = _told_budget(wire, template_kwargs), _effort_of(wire)
    return EFFORT_BUDGETS[effort] if budget is None and effort is not None else budget


def _told_budget(wire: ThinkingFields, template_kwargs: JSONObject) -> int | None:
    return min((budget for budget in _told_budgets(wire, template_kwargs) if budget is not None), default=None)


def _told_budgets(wire: ThinkingFields, template_kwargs: JSONObject) -> Iterator[int | None]:
    for name in ("thinking_budget", "thinking_token_budget", "reasoning_budget", "reasoning_budget_tokens"):
        yield tokens_of(name, getattr(wire, name))
    if wire.thinking is not None:
        yield budget_of_thinking(wire.thinking)
    if wire.reasoning is not None:
        yield tokens_of("reasoning.max_tokens", wire.reasoning.max_tokens)
    in_template = template_kwargs.get("thinking_budget")
    if isinstance(in_template, int) and not isinstance(in_template, bool):
        yield tokens_of("chat_template_kwargs.thinking_budget", in_template)
    if False in (*_switches(wire), *(template_kwargs.get(name) for name in _SWITCHES_OF_TEMPLATES)):
        yield 0


def thinking_variables(wire: ThinkingFields, template_kwargs: JSONObject) -> JSONObject:
    """The variables for the chat template, under the names that templates know. The client's own win.

    An effort does not switch thinking on: many clients send one whatever the model is.
    """
    told: JSONObject = {}
    if not template_kwargs and _FIELDS.isdisjoint(wire.model_fields_set):
        return told
    if (effort := _effort_of(wire)) is not None:
        told["reasoning_effort"] = effort
    budget = _told_budget(wire, template_kwargs)
    if budget is not None and budget < UNBOUNDED:
        told["thinking_budget"] = budget
    if any(name in template_kwargs for name in _SWITCHES_OF_TEMPLATES):
        return told | template_kwargs
    if budget == 0 or effort == "none":
        told |= {"enable_thinking": False, "thinking": False}
    elif budget is not None or True in _switches(wire):
        told |= {"enable_thinking": True, "thinking": True}
    return told | template_kwargs


def _effort_of(wire: ThinkingFields) -> str | None:
    nested = None if wire.reasoning is None else wire.reasoning.effort
    return wire.reasoning_effort or nested


def _switches(wire: ThinkingFields) -> Sequence[bool | None]:
    nested = None if wire.reasoning is None else wire.reasoning.enabled
    return wire.enable_thinking, nested, None if wire.thinking is None else thinks(wire.thinking)
