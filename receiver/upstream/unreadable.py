"""The error for bodies that are not a result."""


class Unreadable(ValueError):
    """A body that is not a result. `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
