"""The vendor's published clients, unmodified, against the stand-in and through Backstop."""
