"""Benchmarks: Periscope beside the plain mlx-lm loop, on the same model, in the same run.

Only `cli` imports it. It uses the engine as a library and the server over HTTP, as any other program would.
"""
