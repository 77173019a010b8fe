"""Images in, words out: intake, captions and their cache, and the blocks that take the images' places in a prompt.

Runs on the event loop, except decoding, which runs in the executor it is given. Knows nothing of HTTP servers or MLX.
"""
