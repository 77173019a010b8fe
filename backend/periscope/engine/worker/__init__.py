"""A model's own thread: what is sent to it, what it reports, and who starts and ends it."""
