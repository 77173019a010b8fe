"""Captioner backends: each one way to have images described."""
