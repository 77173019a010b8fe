"""Text in, events out: splits a model's raw output into answer, reasoning and tool calls.

Pure and incremental; may run on any thread. Knows nothing of MLX, tokenizers, pools or HTTP.
"""
