"""API keys: each has a name, and may be for reading only. Pure."""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

DEFAULT_NAME = "default"
# The name of callers that identify themselves with upstream's token.
TOKEN_NAME = "upstream-token"  # noqa: S105 - a name
_READ_ONLY = "ro_"
_SHORTEST = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_KEY = re.compile(rf"[\x21-\x7e]{{{_SHORTEST},}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that guards the API, the pages and the gateway, and its caller's name. `repr` shows only that."""

    name: str
    key: str = field(repr=False)

    @property
    def may_write(self) -> bool:
        """Whether it may do more than read."""
        return not self.key.startswith(_READ_ONLY)


def parse_api_keys(text: str, example: str) -> tuple[ApiKey, ...]:
    """Parse `key` or `name:key`, several with commas. Raises ValueError, which ends with the example.

    Keys with the same name are one caller. Both work while one is being replaced.
    """
    keys = tuple(_parse(part.strip(), example) for part in text.split(",") if part.strip())
    if not keys:
        raise ValueError(_wanted(example))
    if len({key.key for key in keys}) < len(keys):
        raise ValueError("must name each key once")
    return keys


def find_key(keys: Iterable[ApiKey], given: str) -> ApiKey | None:
    """Return the key that was given. The time that it takes does not show which one matched."""
    same = [key for key in keys if is_same_secret(given, key.key)]
    return same[0] if same else None


def is_same_secret(given: str, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def _parse(part: str, example: str) -> ApiKey:
    name, colon, key = part.partition(":")
    if not colon:
        name, key = DEFAULT_NAME, part
    if not _NAME.fullmatch(name) or name == TOKEN_NAME or not _KEY.fullmatch(key):
        raise ValueError(_wanted(example))
    return ApiKey(name, key)


def _wanted(example: str) -> str:
    return (
        f"must be {_SHORTEST} characters or more of printable ASCII without spaces and commas, several as"
        f" name:key with commas between them, like the output of: {example}"
    )
