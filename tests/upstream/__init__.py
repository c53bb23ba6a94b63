"""A stand-in for Ace Data Cloud's API: a real HTTP server, seeded, with faults on request."""

from .lookups import Call
from .options import Options
from .stand_in import StandIn

__all__ = ["Call", "Options", "StandIn"]
