"""Who is in memory, and who may use it now. Event loop only; knows neither MLX nor HTTP."""
