"""Captions, and where they are kept. Knows nothing of images, prompts or captioners: a caption has an opaque key."""
