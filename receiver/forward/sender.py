"""Posts a request to the customer's app. It asks once: its caller decides about trying again."""

from receiver.forward.attempt import Outcome as Outcome
from receiver.forward.attempt import Request as Request


class Sender:
    """Sends requests. Safe to share between threads."""

    def __init__(self, allow_private_urls: bool, connections: int) -> None:
        self._allow_private_urls = allow_private_urls
        self._connections = connections

    def send(self, request: Request) -> Outcome:
        """Send a request and return what came of it. It takes 15 s at most."""
        raise NotImplementedError
