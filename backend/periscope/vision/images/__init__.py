"""Image intake: from what the client sent to upright 8-bit RGB. Pure; may block, so it runs in an executor."""
