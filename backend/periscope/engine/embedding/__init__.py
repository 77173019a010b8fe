"""Embedding models: networks over mlx-lm and mlx-vlm, their batch, and the engine that turns texts into vectors."""
