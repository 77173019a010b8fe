"""OpenAI's Responses API: wire to core (`decode`) and back (`encode`). Nothing outside this package knows it."""
