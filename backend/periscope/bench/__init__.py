"""Measuring: Periscope beside the plain mlx-lm loop on the same model, in the same minutes, from the outside.

Only the commands import it. It drives the engine as a library and the server over HTTP, as any program would.
"""
