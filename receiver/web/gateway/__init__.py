"""The gateway: upstream's API for the customer's clients, which name us as their base address."""
