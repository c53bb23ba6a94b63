"""The applications that Backstop is measured beside."""
