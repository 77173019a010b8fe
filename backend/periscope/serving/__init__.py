"""Serves requests from their first step to their last event, without HTTP. Event loop only."""
