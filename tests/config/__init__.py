"""Tests of periscope.config."""
