"""What becomes of each field of Anthropic's requests. Data.

Source: the types of Anthropic's SDK (`MessageCreateParams` and those of its betas), and what Claude Code sends.
"""

from __future__ import annotations

from periscope.api.fields import FieldTable, ignored, refused, refused_beyond_chats, used

#: POST /v1/messages, and /v1/messages/count_tokens as far as it has them.
MESSAGES_FIELDS: FieldTable = {
    "model": used("names of Anthropic's are answered by `server.anthropic_model`"),
    "messages": used("roles `user`, `assistant`, and `system` within the conversation"),
    "max_tokens": used("required, as with Anthropic"),
    "system": used(),
    "stream": used(),
    "stop_sequences": used(),
    "temperature": used(),
    "top_p": used(),
    "top_k": used(),
    "tools": used("tools that Anthropic runs are left out and named; refused only if there are no others"),
    "tool_choice": used("`auto`, `any`, `tool`, `none`; `disable_parallel_tool_use`: one call at most"),
    "thinking": used("switches reasoning on and off; `budget_tokens` bounds it"),
    "output_config": used("`effort`, `format`"),
    "output_format": used("the beta's name of `output_config.format`"),
    "metadata": ignored("nobody is counted or billed by it"),
    "workspace_id": ignored("nobody is counted or billed by it"),
    "user_profile_id": ignored("nobody is counted or billed by it"),
    "service_tier": ignored("there is one queue"),
    "speed": ignored("there is one speed"),
    "inference_geo": ignored("it runs here"),
    "cache_control": ignored("prefixes that prompts share are found by themselves"),
    "context_management": ignored("nothing is dropped from a conversation"),
    "diagnostics": ignored("the answer is the same"),
    "betas": ignored("what is supported is on"),
    "mcp_servers": refused(
        "tools on MCP servers are called for requests to /v1/responses",
        [],
        fix="send the request to /v1/responses, with `tools` of type mcp for servers of `mcp_servers` in models.yaml",
    ),
    "container": refused("the server runs no code", {}),
    "stop": refused("OpenAI's", [], fix="send it as `stop_sequences`"),
    "response_format": refused("OpenAI's", fix="send a schema as `output_config.format`"),
    "n": refused("OpenAI's; 1 is accepted", 1, fix="send the request several times"),
    "logprobs": refused("OpenAI's", False),
    "logit_bias": refused("OpenAI's", {}),
    "max_completion_tokens": refused("OpenAI's", fix="send it as `max_tokens`"),
    **refused_beyond_chats("output_config.format"),
    "continue_final_message": ignored("vLLM's; a last message of the assistant always goes on"),
}
