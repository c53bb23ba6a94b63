"""What Backstop serves: callbacks, the task API, the pages and the health routes."""
