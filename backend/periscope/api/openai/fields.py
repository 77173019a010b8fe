"""What becomes of each field of OpenAI's requests, and of those that other servers have added to them. Data.

Source: the types of OpenAI's SDK, vLLM's `entrypoints/openai/*/protocol.py`, llama.cpp's `tools/server/README.md`.
"""

from __future__ import annotations

from typing import Final

from periscope.api.fields import FieldTable, ignored, noted, refused, used

_GRAMMAR: Final = "vLLM's; the answer must fit it"

#: Fields that chat completions and completions share.
_GENERATION: FieldTable = {
    "model": used("a name or an alias; none, `default` or an empty one: the first model"),
    "stream": used(),
    "stream_options": used("`include_usage`; only beside `stream`"),
    "stream_options.include_obfuscation": noted("streams have no padding", False),
    "n": used("up to 16"),
    "temperature": used(),
    "top_p": used(),
    "top_k": used("vLLM's and llama.cpp's; 0 and -1 switch it off"),
    "min_p": used("vLLM's and llama.cpp's"),
    "repetition_penalty": used("vLLM's and mlx-lm's"),
    "frequency_penalty": used(),
    "presence_penalty": used(),
    "seed": used("-1: none"),
    "stop": used("a text or up to 16; acts on the answer, not on reasoning or calls"),
    "stop_token_ids": used("vLLM's"),
    "min_tokens": used("vLLM's"),
    "ignore_eos": used("vLLM's"),
    "logit_bias": used("up to 1024 token ids"),
    "response_format": used("`text`, `json_object`, `json_schema`; enforced, whatever `strict` says"),
    "guided_json": used(_GRAMMAR),
    "guided_regex": used(_GRAMMAR),
    "guided_choice": used(_GRAMMAR),
    "guided_grammar": used(_GRAMMAR),
    "structured_outputs": used("vLLM's; `json`, `json_object`, `regex`, `choice`, `grammar`"),
    "grammar": used("llama.cpp's; GBNF or Lark"),
    "json_schema": used("llama.cpp's"),
    "user": ignored("nobody is counted or billed by it"),
    "safety_identifier": ignored("nobody is counted or billed by it"),
    "metadata": ignored("answers are not stored"),
    "store": ignored("answers are not stored"),
    "service_tier": ignored("there is one queue"),
    "prompt_cache_key": ignored("prefixes that prompts share are found by themselves"),
    "prompt_cache_options": ignored("prefixes that prompts share are found by themselves"),
    "prompt_cache_retention": ignored("prefixes that prompts share are kept while there is memory"),
    "cache_prompt": ignored("llama.cpp's; prompts are always cached"),
    "bad_words": refused("vLLM's; `logit_bias` of -100 bans single tokens", []),
    "prompt_logprobs": refused("vLLM's", 0, False),
    "use_beam_search": refused("vLLM's", False),
}

#: POST /v1/chat/completions.
CHAT_FIELDS: FieldTable = {
    **_GENERATION,
    "messages": used("roles `system`, `developer`, `user`, `assistant`, `tool`"),
    "max_tokens": used("the older name of `max_completion_tokens`; -1: no limit"),
    "max_completion_tokens": used("reasoning counts; wins over `max_tokens`"),
    "logprobs": used(),
    "top_logprobs": used("up to 20"),
    "tools": used(
        "`function` and `custom`; others are left out and named, and refused only if there are no others; tools on MCP "
        "servers (`mcp`) are called for requests to /v1/responses"
    ),
    "tool_choice": used("`none`, `auto`, `required`, a tool by name, `allowed_tools`; all are enforced"),
    "functions": used("what `tools` replaced; the call comes back as `function_call`"),
    "function_call": used("what `tool_choice` replaced"),
    "parallel_tool_calls": used("false: one call at most"),
    "reasoning_effort": used("`none` to `max`: a budget of thinking, of which the chat template is told, too"),
    "thinking_budget": used("Qwen's; tokens, -1: no bound"),
    "thinking_token_budget": used("vLLM's; the same"),
    "reasoning_budget": used("llama.cpp's; the same"),
    "reasoning_budget_tokens": used("llama.cpp's; the same"),
    "reasoning": used("OpenRouter's; `effort`, `max_tokens`, `enabled`"),
    "thinking": used("Anthropic's, DeepSeek's and GLM's; `type`, `budget_tokens`, or true or false"),
    "enable_thinking": used("Qwen's; true or false"),
    "chat_template_kwargs": used("vLLM's and llama.cpp's; wins over `reasoning_effort`"),
    "prediction": used("drafted, so that an answer which repeats it is faster; not beside a `draft_model`"),
    "verbosity": noted("OpenAI's models alone know it", "medium"),
    "moderation": refused("nothing is moderated here"),
    "modalities": refused("answers are text", ["text"]),
    "audio": refused("answers are text"),
    "web_search_options": refused("the server does not search the web"),
    "system": refused("of another dialect", "", [], fix="send a message of role `system`"),
    "instructions": refused("of another dialect", "", fix="send a message of role `system`"),
    "prompt": refused("of another dialect", "", fix="send it in `messages`"),
    "input": refused("of another dialect", "", [], fix="send it in `messages`"),
    "images": refused("of another dialect", [], fix="send them as `image_url` parts of messages"),
    "files": refused("of another dialect", [], fix="send them as `file` parts of messages"),
    "attachments": refused("of another dialect", [], fix="send them as parts of messages"),
    "documents": refused("of another dialect", [], fix="send them as `file` parts of messages"),
    "chat_template": refused("vLLM's; it is the model's own, and code"),
    "continue_final_message": used("vLLM's; the last message of the assistant goes on"),
    "add_generation_prompt": used("vLLM's; false beside `continue_final_message`"),
    "echo": refused("vLLM's", False),
}

#: POST /v1/completions.
COMPLETION_FIELDS: FieldTable = {
    **_GENERATION,
    "prompt": used("a text, token ids, or a list of either"),
    "suffix": used("for models that fill in the middle"),
    "max_tokens": used("16 unless it is sent; -1: no limit"),
    "logprobs": used("up to 5"),
    "echo": used("not beside `suffix`"),
    "best_of": used("only as many as `n`"),
    "add_special_tokens": used("vLLM's"),
    "messages": refused("of chats", [], fix="send them to /v1/chat/completions"),
    "images": refused("of another dialect", [], fix="send pictures to /v1/chat/completions"),
    "tools": refused("of chats", [], fix="send them to /v1/chat/completions"),
    "tool_choice": refused("of chats", "none", "auto"),
    "prompt_embeds": refused("vLLM's"),
    "allowed_token_ids": refused("vLLM's", []),
    "truncate_prompt_tokens": refused("vLLM's; a prompt that is too long is a 400"),
    "return_tokens_as_token_ids": refused("vLLM's", False),
    "return_token_ids": refused("vLLM's", False),
}

_PROMPTS = "name one of the model's prompts as `prompt_name`"
#: POST /v1/embeddings.
EMBEDDING_FIELDS: FieldTable = {
    "model": used("a name or an alias; none, `default` or an empty one: the first embedding model"),
    "input": used("a text, token ids, or a list of either; up to 2048, none empty"),
    "encoding_format": used("`float` or `base64` (float32 in little-endian order)"),
    "dimensions": used("fewer than all only for models that are known to be trained for it"),
    "truncate_prompt_tokens": used("vLLM's; -1: as many as the model takes"),
    "prompt_name": used("text-embeddings-inference's; one of the prompts in the model's files"),
    "user": ignored("nobody is counted or billed by it"),
    "input_type": refused("Cohere's and Voyage's", fix=_PROMPTS),
    "task": refused("Jina's", fix=_PROMPTS),
    "task_type": refused("Google's", fix=_PROMPTS),
    "instruction": refused("of other servers", fix=_PROMPTS),
    "messages": refused("vLLM's", [], fix="put texts into `input`"),
    "prompt": refused("of another dialect", fix="put texts into `input`"),
    "images": refused("of another dialect; only texts are embedded", []),
    "normalize": refused("of other servers; vectors are normalised as the model's files say"),
    "truncate": refused("of other servers", fix="set `truncate_prompt_tokens` to -1"),
    "output_dtype": refused("Voyage's", "float"),
}
