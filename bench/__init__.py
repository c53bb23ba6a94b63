"""The benchmark: how fast Backstop is beside others, and whether it keeps what it acknowledges."""
