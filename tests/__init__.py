"""The tests, and what they are made of."""

import os
import sys

# They start a thousand processes. Without the cache each would compile all modules again: that took half of the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
