"""One request, end to end, without HTTP."""
