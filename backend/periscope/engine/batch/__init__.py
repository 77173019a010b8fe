"""Continuous batching: which tokens are computed in a step, the forward passes, the caches of rows and prefixes."""
