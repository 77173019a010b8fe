"""The form of the answer to one chat completion. Pure but for the clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from periscope.api.openai.encode import ChatReply

if TYPE_CHECKING:
    from periscope.api.openai.chat import ChatCall
    from periscope.api.settings import ApiSettings


def chat_reply(call: ChatCall, model: str, settings: ApiSettings) -> ChatReply:
    """What all chunks of the answer to this call have in common.

    Args:
        model: its name in the answer.
    """
    return ChatReply(
        id=call.request.id,
        model=model,
        created=int(time.time()),
        num_choices=call.request.num_choices,
        has_usage=call.has_usage or settings.always_include_usage,
        is_single_tool_call=not call.request.output.tool_choice.is_parallel,
        custom_tools=call.custom_tools,
        left_out=call.left_out,
        has_functions=call.has_functions,
        status_as_comments=settings.status_as_comments,
    )
