"""The ledger's read side: lists, counts and totals."""
