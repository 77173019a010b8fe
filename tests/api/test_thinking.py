"""The fields that bound thinking: each client's spelling becomes one budget, and variables that templates know."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.openai.chat import decode
from periscope.api.thinking import UNBOUNDED
from periscope.core import GenerationRequest
from periscope.errors import InvalidRequest

ON, OFF = {"enable_thinking": True, "thinking": True}, {"enable_thinking": False, "thinking": False}


def decoded(**fields: Any) -> GenerationRequest:
    return decode({"messages": [{"role": "user", "content": "Hi"}]} | fields, "x").request


@pytest.mark.parametrize(
    ("fields", "budget", "variables"),
    [
        ({}, None, {}),
        *(
            ({name: 700}, 700, ON | {"thinking_budget": 700})
            for name in ("thinking_budget", "thinking_token_budget", "reasoning_budget", "reasoning_budget_tokens")
        ),
        ({"thinking_budget": -1}, UNBOUNDED, ON),
        ({"thinking_budget": 0}, 0, OFF | {"thinking_budget": 0}),
        ({"thinking_budget": 5.0}, 5, ON | {"thinking_budget": 5}),
        ({"reasoning_effort": "low"}, 1024, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "xhigh"}, UNBOUNDED, {"reasoning_effort": "xhigh"}),
        ({"reasoning_effort": "none"}, 0, OFF | {"reasoning_effort": "none"}),
        ({"reasoning": {"effort": "medium"}}, 8192, {"reasoning_effort": "medium"}),
        ({"reasoning": {"max_tokens": 40}}, 40, ON | {"thinking_budget": 40}),
        ({"reasoning": {"enabled": False}}, 0, OFF | {"thinking_budget": 0}),
        ({"thinking": {"type": "enabled", "budget_tokens": 90}}, 90, ON | {"thinking_budget": 90}),
        ({"thinking": {"type": "enabled"}}, None, ON),
        ({"thinking": {"type": "disabled"}}, 0, OFF | {"thinking_budget": 0}),
        ({"thinking": {"type": "adaptive", "budget_tokens": 0}}, None, ON),
        ({"thinking": {"type": "auto"}}, None, {}),
        ({"thinking": False}, 0, OFF | {"thinking_budget": 0}),
        ({"enable_thinking": True, "reasoning_effort": "low"}, 1024, ON | {"reasoning_effort": "low"}),
        ({"enable_thinking": False, "thinking_budget": 50}, 0, OFF | {"thinking_budget": 0}),
        ({"reasoning_effort": "high", "thinking_budget": 60, "reasoning_budget": 80}, 60, None),
        ({"chat_template_kwargs": {"thinking_budget": 30}}, 30, ON | {"thinking_budget": 30}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, 0, {"enable_thinking": False, "thinking_budget": 0}),
        ({"chat_template_kwargs": {"thinking": False}}, 0, {"thinking": False, "thinking_budget": 0}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, None, {"enable_thinking": True}),
        (
            {"chat_template_kwargs": {"thinking": True}, "thinking_budget": 3},
            3,
            {"thinking": True, "thinking_budget": 3},
        ),
    ],
)
def test_every_spelling_is_a_budget(fields: dict[str, Any], budget: int | None, variables: dict[str, Any]) -> None:
    """Numbers win over an effort, the smallest counts, and what is switched off has none."""
    request = decoded(**fields)
    assert request.params.thinking_budget == budget
    if variables is not None:
        assert request.template_kwargs == variables


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking_budget": -2}, "thinking_budget"),
        ({"thinking_token_budget": "9"}, "thinking_token_budget"),
        ({"reasoning_budget": 2**40}, "reasoning_budget"),
        ({"reasoning_budget_tokens": 1.5}, "reasoning_budget_tokens"),
        ({"reasoning": {"max_tokens": -5}}, "reasoning.max_tokens"),
        ({"reasoning": {"effort": "lots"}}, "reasoning.effort"),
        ({"reasoning": 5}, "reasoning"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"thinking": {"budget_tokens": 5}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": -7}}, "thinking.budget_tokens"),
        ({"thinking": "yes"}, "thinking"),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"chat_template_kwargs": {"thinking_budget": -9}}, "chat_template_kwargs.thinking_budget"),
    ],
)
def test_what_is_no_bound_is_named(fields: dict[str, Any], param: str) -> None:
    """By the client's own field."""
    with pytest.raises(InvalidRequest) as caught:
        decoded(**fields)
    assert caught.value.param == param
