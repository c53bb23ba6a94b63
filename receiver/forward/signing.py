"""Signs what is sent, as Standard Webhooks says (standardwebhooks.com). Pure."""

from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

from receiver.clock import to_unix


def sign(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers that identify and sign a message. Each secret adds a signature; none, no header.

    The body must be UTF-8: the package signs texts. Raises UnicodeDecodeError, a ValueError.
    """
    text = body.decode()
    # The package takes a time without a zone as UTC, which is how all our times are.
    signatures = [Webhook(secret).sign(message_id, at, text) for secret in secrets]
    named = {"webhook-id": message_id, "webhook-timestamp": str(int(to_unix(at)))}
    return named | ({"webhook-signature": " ".join(signatures)} if signatures else {})
