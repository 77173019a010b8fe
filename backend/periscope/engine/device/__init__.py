"""Who may use the device now, and how much memory it has for KV caches."""
