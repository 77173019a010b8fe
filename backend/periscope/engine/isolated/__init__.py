"""A captioner in a process of its own."""
