"""Captions, the cache that gives them out and the file that keeps them, under opaque keys.

Nothing here knows images, prompts or captioners.
"""
