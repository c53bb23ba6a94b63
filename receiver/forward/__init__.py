"""Whom we tell: signs an event and posts it to an address. It knows no ledger."""
