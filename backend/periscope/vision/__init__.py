"""Turns the images of a request into text: intake, captioning, and the blocks that replace the images in a prompt.

Everything runs on the event loop, except reading and decoding of images, which run in the executor that the intake is
given. Nothing here knows HTTP servers or MLX.
"""
