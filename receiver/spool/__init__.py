"""The spool: deliveries on disk, until the database can store them."""
