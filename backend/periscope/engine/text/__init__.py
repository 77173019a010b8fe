"""From messages to tokens and back: chat templates, prompt bounds, detokenizing."""
