"""Embedding models: networks, files, batches and the engine."""
