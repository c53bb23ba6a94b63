"""Where deliveries wait while the database is away."""
