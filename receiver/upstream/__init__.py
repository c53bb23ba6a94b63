"""Whom we ask, and what it says."""
