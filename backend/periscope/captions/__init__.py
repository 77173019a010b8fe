"""Captions and the cache that keeps them, under opaque keys. Nothing here knows images, prompts or captioners."""
