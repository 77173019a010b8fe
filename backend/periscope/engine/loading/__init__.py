"""From a folder or hub id to weights in memory: what a model takes, before a load and after it."""
