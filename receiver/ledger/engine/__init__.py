"""The database: connections, transactions, statements, schema."""
