"""What the server tells of itself to Prometheus and to an OpenTelemetry collector: no prompt, no caption, no answer.

It listens to the events of the server and reads its status. It changes nothing, and only the composition root knows it.
"""
