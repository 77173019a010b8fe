"""Chat templates, tokenising within bounds, and detokenizing."""
