"""What is asked of the ledger: lists, counts and totals. Nothing here writes."""
