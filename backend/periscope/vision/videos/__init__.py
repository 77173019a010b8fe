"""Frames of videos, as images that can be captioned."""
