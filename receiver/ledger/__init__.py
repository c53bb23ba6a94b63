"""What Backstop knows: tasks, deliveries, look-ups and runs, in SQLite or PostgreSQL."""
