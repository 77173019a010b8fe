"""Periscope in a program of yours, without a server. `periscope/__init__.py` lists the public names."""
