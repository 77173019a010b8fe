"""Documents in a conversation become text and pictures of pages."""
