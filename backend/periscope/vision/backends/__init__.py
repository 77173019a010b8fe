"""Captioner backends: implementations of the `Captioner` protocol."""
