"""The worker thread of a loaded model, the commands it takes, the reports it makes, and the host that owns it."""
