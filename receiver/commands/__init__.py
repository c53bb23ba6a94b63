"""Commands for the operator, with one module for each group."""
