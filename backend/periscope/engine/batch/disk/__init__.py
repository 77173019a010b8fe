"""Kept states on disk: their files, which of them are written, and how a prompt gets its prefix from one."""
