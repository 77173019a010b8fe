"""Which models are in memory, and which requests may use them now. Event loop only; knows neither MLX nor HTTP."""
