"""A whole world under virtual time: the real ledger, reconciler, discoverer and spool, and everything that goes wrong.

Each world is drawn from one seed, and the seed makes the same world again. `make simulate` runs many.
"""
