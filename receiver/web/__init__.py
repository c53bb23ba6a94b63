"""The web process: callbacks, the task API, the pages and the health routes."""
