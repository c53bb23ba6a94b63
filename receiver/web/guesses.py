"""Slows the guessing of API keys and callback tokens: beyond a rate a wrong one gets 429 at once.

The right one is checked first and always passes. Otherwise a stranger behind the same proxy could lock out
the customer's app, and a callback, which comes only once, would be lost.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from flask import current_app, request
from werkzeug.exceptions import TooManyRequests

from receiver.ledger.budget import Budget
from receiver.ledger.refusals import GUESSED, WRONG_TOKEN
from receiver.web.intake import current_intake

# In each process. A person who mistypes a key needs a few of them.
FROM_AN_ADDRESS, ALTOGETHER, WITHIN_SECONDS = 10, 300, 60.0
_MOST_ADDRESSES = 1000
_IPV6_NETWORK_BITS = 64  # a customer of a provider has so large a network


class TooManyGuesses(TooManyRequests):
    """A wrong key or token, after too many others."""

    description = (
        "This API key or callback token is wrong, and too many wrong ones came. The right one is answered at"
        " once."
    )

    def __init__(self) -> None:
        super().__init__(retry_after=int(WITHIN_SECONDS))


class Guesses:
    """Counts wrong keys and tokens, by address and altogether. Keeps the addresses that guessed last."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._altogether = self._budget(ALTOGETHER)
        self._each: OrderedDict[str, Budget] = OrderedDict()

    def note(self, address: str | None) -> bool:
        """Count a wrong one from an address. Return whether there are too many."""
        network = network_of(address or "")
        with self._lock:
            own = self._each.pop(network, None) or self._budget(FROM_AN_ADDRESS)
            self._each[network] = own
            if len(self._each) > _MOST_ADDRESSES:
                self._each.popitem(last=False)
        return not own.take(1) or not self._altogether.take(1)

    def _budget(self, most: int) -> Budget:
        return Budget(most, WITHIN_SECONDS, self._monotonic)


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""  # a proxy wrote something else: all of these count as one
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_NETWORK_BITS), strict=False))


def note_wrong_key() -> None:
    """Count the request's API key, which is wrong. Raises TooManyGuesses (429) beyond the rate."""
    if _are_too_many():
        current_intake().refused.note(GUESSED, request.remote_addr)
        raise TooManyGuesses


def note_wrong_token(is_probe: bool) -> None:
    """Count the request's callback token, which is wrong. Raises TooManyGuesses (429) beyond the rate.

    A probe of `check` is not counted, as `check` itself says that its token is wrong. Beyond the rate it is a
    guesser's that calls itself a probe.
    """
    too_many = _are_too_many()
    if too_many or not is_probe:
        current_intake().refused.note(WRONG_TOKEN, request.remote_addr)
    if too_many:
        raise TooManyGuesses


def _are_too_many() -> bool:
    guesses: Guesses = current_app.extensions["backstop_guesses"]
    return guesses.note(request.remote_addr)
