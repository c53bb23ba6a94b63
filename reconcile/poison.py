"""Whether one id spoils a batch, or upstream refuses every call with a code that nobody knows."""

from collections import Counter
from datetime import datetime

from receiver.ledger.store import Claim
from receiver.upstream.client import ErrorScope, UpstreamError

# One bad id leaves one half good at each level. Four quarters that are all bad are no poison.
_QUARTERS, _LEVEL = 4, 2
_WHOLE_BATCHES = 3


class Suspicion:
    """What the calls of one run tell about an unknown code."""

    def __init__(self) -> None:
        self._quarters: Counter[tuple[datetime, bool]] = Counter()  # by batch: a half keeps its lease
        self._wholes = 0
        self._answered = False
        self._suspects = False

    @property
    def is_open(self) -> bool:
        """Tell whether one call at a time should be made: the next answer tells what is wrong."""
        return self._suspects and not self._answered

    def note_answer(self) -> None:
        """Note that upstream has answered a call of this run: it does not refuse everything."""
        self._answered = True

    def is_about_all(self, claimed: Claim, error: UpstreamError) -> bool:
        """Note a call that failed, and tell whether the error is about all calls."""
        if error.is_known or error.scope is not ErrorScope.ID:
            return False
        self._suspects = True
        batch = (claimed.leased_until, claimed.doubtful)
        self._quarters[batch] += claimed.depth == _LEVEL
        # Strangers may name as many bad ids as they like: only known tasks count.
        self._wholes += claimed.depth == 0 and len(claimed.tasks) > 1 and not claimed.doubtful
        return not self._answered and (self._quarters[batch] >= _QUARTERS or self._wholes >= _WHOLE_BATCHES)

    def is_about_id(self, error: UpstreamError) -> bool:
        """Tell whether an error that met a single id is an answer about that id."""
        if not error.permanent:
            return False
        return error.scope is ErrorScope.SIZE or (
            error.scope is ErrorScope.ID and (error.is_known or self._answered)
        )
