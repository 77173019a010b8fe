"""OpenAI's dialect: wire to core (`decode`) and back (`encode`). Nothing below this room knows it."""
