"""How many examples a property of the ledger is tried on. Each costs some statements, on each database."""

from hypothesis import settings

# A share of what a pure property is tried on, so that a profile with more has more of both.
on_a_ledger = settings(max_examples=settings().max_examples * 3 // 10)
