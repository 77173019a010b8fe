"""Vision-language models: their batch over mlx-vlm, and the engine that serves image descriptions."""
