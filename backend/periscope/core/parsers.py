"""The names of the parsers that models.yaml may choose for a model's output. The engine knows what each reads."""

from __future__ import annotations

from typing import Final

#: How a model writes its calls. Beside mlx-lm's own names: `hermes` is `json_tools`, `llama` Llama 3's bare objects,
#: `harmony` the channels of gpt-oss, and `none` reads no calls.
TOOL_PARSERS: Final = (
    *("function_gemma", "gemma4", "glm47", "harmony", "hermes", "json_tools", "kimi_k2", "kimi_k3", "laguna", "llama"),
    *("longcat", "minicpm5", "minimax_m2", "mistral", "muse_spark", "none", "pythonic", "qwen3_coder"),
)
#: How a model marks its reasoning. Beside the families vLLM's names for them, and `none`.
REASONING_PARSERS: Final = (
    *("deepseek_r1", "glm45", "harmony", "mistral", "none", "openai_gptoss", "qwen3", "seed_oss", "think"),
)
