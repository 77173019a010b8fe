"""What becomes of each field of requests to `/v1/responses`. Data.

Source: the types of OpenAI's SDK (`ResponseCreateParams`), and what Codex sends.
"""

from __future__ import annotations

from periscope.api.fields import FieldTable, ignored, noted, refused, refused_beyond_chats, used

#: POST /v1/responses, and /v1/responses/input_tokens as far as it has them.
RESPONSES_FIELDS: FieldTable = {
    "model": used("a name or an alias; none, `default` or an empty one: the first model"),
    "input": used(
        "a text, or items: messages, calls, results, reasoning, references, approvals, and items of OpenAI's tools"
    ),
    "instructions": used("for this request alone, as with OpenAI"),
    "previous_response_id": used("goes on from a stored response"),
    "store": used("true unless it says otherwise"),
    "stream": used(),
    "include": used("`reasoning.encrypted_content`, `message.output_text.logprobs`; the others change nothing"),
    "tools": used(
        "`function`, `custom`, `namespace`; `mcp` for the servers of `mcp_servers` in models.yaml, by `server_label`; "
        "others are left out; refused if there are no others"
    ),
    "tool_choice": used("`none`, `auto`, `required`, `function`, `custom`, `mcp`, `allowed_tools`"),
    "parallel_tool_calls": used("false: one call at most"),
    "max_tool_calls": used("calls of tools on MCP servers that are run, 128 at most"),
    "text": used("`format`: `text`, `json_object`, `json_schema`, enforced whatever `strict` says"),
    "text.verbosity": noted("no model here knows it", "medium"),
    "reasoning": used("`effort`: a budget of thinking; `summary`: reasoning is told as a summary, all of it"),
    "reasoning.mode": noted("there is one way of thinking", "standard"),
    "reasoning.context": noted("reasoning of earlier turns is used as the model's chat template does", "auto"),
    "truncation": used("`auto`: the oldest turns are dropped until the prompt fits"),
    "max_output_tokens": used(),
    "temperature": used(),
    "top_p": used(),
    "top_logprobs": used("asks for `message.output_text.logprobs`, too"),
    "metadata": used("repeated in the answer"),
    "prompt_cache_key": used("repeated in the answer; prefixes that prompts share are found by themselves"),
    "safety_identifier": used("repeated in the answer"),
    "user": used("repeated in the answer"),
    "reasoning_effort": used("as in chat completions"),
    "thinking_budget": used("as in chat completions"),
    "thinking_token_budget": used("as in chat completions"),
    "reasoning_budget": used("as in chat completions"),
    "reasoning_budget_tokens": used("as in chat completions"),
    "thinking": used("as in chat completions"),
    "enable_thinking": used("as in chat completions"),
    "top_k": used("vLLM's"),
    "min_p": used("vLLM's"),
    "repetition_penalty": used("vLLM's"),
    "frequency_penalty": used("as in chat completions"),
    "presence_penalty": used("as in chat completions"),
    "seed": used("as in chat completions"),
    "stop": used("as in chat completions"),
    "service_tier": ignored("there is one queue"),
    "stream_options": ignored("streams have no padding"),
    "prompt_cache_options": ignored("prefixes that prompts share are found by themselves"),
    "prompt_cache_retention": ignored("prefixes that prompts share are kept while there is memory"),
    "client_metadata": ignored("Codex's"),
    "access_programs": ignored("nobody is asked"),
    "background_options": ignored("they go with `background`"),
    "context_management": noted("nothing is dropped from a conversation unless `truncation` is `auto`", []),
    "image": noted("pictures are described as they are"),
    "background": refused("responses are made while the client waits", False, fix="send `stream: true` to follow it"),
    "conversation": refused("there are no conversations", fix="send `previous_response_id`, or all items in `input`"),
    "prompt": refused("there are no stored prompts", fix="send the text in `instructions` or `input`"),
    "moderation": refused("nothing is moderated"),
    "messages": refused("chat completions'", [], fix="send the conversation in `input`"),
    "response_format": refused("chat completions'", fix="send it as `text.format`"),
    "max_tokens": refused("chat completions'", fix="send it as `max_output_tokens`"),
    "max_completion_tokens": refused("chat completions'", fix="send it as `max_output_tokens`"),
    "functions": refused("chat completions'", [], fix="send them in `tools`"),
    "n": refused("chat completions'; 1 is accepted", 1, fix="send the request several times"),
    "logprobs": refused("chat completions'", False, fix='send `include: ["message.output_text.logprobs"]`'),
    "logit_bias": refused("chat completions'", {}),
    "chat_template_kwargs": refused("chat completions'", {}, fix="set them in models.yaml"),
    **refused_beyond_chats("text.format"),
}

_OF_THE_FILE = "which MCP servers are connected to stands in models.yaml alone"
_NAME_IT = "add the server to `mcp_servers` in models.yaml, with its key, and send its name as `server_label`"
#: An entry of `tools` of type `mcp`.
MCP_FIELDS: FieldTable = {
    "type": used(),
    "server_label": used("the `name` of a server of `mcp_servers` in models.yaml"),
    "allowed_tools": used("names, or a filter; of those that the file allows"),
    "require_approval": used(
        "`always`, `never` or filters; unset, `always`, unless the file says otherwise, which goes first"
    ),
    "server_description": noted("the tools describe themselves", ""),
    "defer_loading": noted("the model is offered all tools at once", False),
    "allowed_callers": noted("the model calls", []),
    "server_url": refused(_OF_THE_FILE, "", fix=_NAME_IT),
    "connector_id": refused(_OF_THE_FILE, "", fix=_NAME_IT),
    "tunnel_id": refused(_OF_THE_FILE, "", fix=_NAME_IT),
    "authorization": refused("keys stand in models.yaml", "", fix=_NAME_IT),
    "headers": refused("headers stand in models.yaml", {}, fix=_NAME_IT),
}
