"""What a watcher is told: health, notices, incidents, metrics."""
