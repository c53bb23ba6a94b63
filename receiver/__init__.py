"""What Backstop serves, what it knows and whom it asks."""
