"""Finds variables that nobody reads, as their names are misspelt. Pure."""

import difflib
from collections.abc import Collection, Mapping

# How alike two names must be, from 0 to 1. Other programs have variables too: APP_KEY and API_KEY are alike
# to 0.86, and that is no mistake.
_ALIKE = 0.88
# Only our settings begin so. Any other variable that does is a mistake, like RECONCILE_GRACE_SECONDS.
_OUR_BEGINNINGS = ("RECONCILE_", "FORWARD_")
_ALIKE_AS_IT_BEGINS_LIKE_OURS = 0.6


def misspelt(environ: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Return the variables that have a value and are no settings, each with the setting that it resembles."""
    given = sorted(name for name, value in environ.items() if value and name not in known)
    nearest = {name: _nearest(name.upper(), known) for name in given}
    return {name: near for name, near in nearest.items() if near}


def in_words(names: Mapping[str, str]) -> list[str]:
    """Return a sentence for each misspelt variable, without its value."""
    return [f"{name} is no setting and is ignored; did you mean {near}?" for name, near in names.items()]


def _nearest(name: str, known: Collection[str]) -> str | None:
    alike = _ALIKE_AS_IT_BEGINS_LIKE_OURS if name.startswith(_OUR_BEGINNINGS) else _ALIKE
    return next(iter(difflib.get_close_matches(name, known, 1, alike)), None)
