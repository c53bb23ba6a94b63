"""Reads settings from variables one by one, and collects what is wrong with them."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from receiver import values
from receiver.misspelt import in_words, misspelt

_T = TypeVar("_T")


class SettingsError(SystemExit):
    """The settings are unusable. The message lists every problem and no secret.

    It is a SystemExit, so that the process exits with the message and without a traceback.
    """


class Reader:
    """Reads variables of an environment one by one. `given` is what was read, and whether it was set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []
        self.given: dict[str, tuple[object, bool]] = {}
        self.misspelt: dict[str, str] = {}

    def read(self, name: str, parse: Callable[[str], _T], default: _T, required: bool = False) -> _T:
        text = self._environ.get(name, "").strip()
        self.given[name] = (default, False)
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            self._problems.append(f"{name} is in quotes, which count as part of its value here: remove them")
            return default
        if not text:  # platforms' forms set blank variables to ""
            if required:
                self._problems.append(f"{name} is missing; make one with: {values.TO_MAKE_ONE}")
            return default
        try:
            value = parse(text)
            self.given[name] = (value, True)
            return value
        except ValueError as problem:
            self._problems.append(f"{name} {problem}")
            return default

    def has_refused(self, name: str) -> bool:
        return any(problem.startswith(f"{name} ") for problem in self._problems)

    def complain_if(self, problem: str | None) -> None:
        if problem:
            self._problems.append(problem)

    def raise_for_problems(self) -> None:
        """Raise SettingsError if there are problems. All settings have been read."""
        self.misspelt |= misspelt(self._environ, self.given)
        if self._problems:
            problems = [*self._problems, *in_words(self.misspelt)]
            lines = "\n".join(f"  - {problem}" for problem in problems)
            raise SettingsError(
                f"Backstop cannot start. Please correct these settings:\n{lines}\n"
                "Set them in the environment, or in a .env file here (.env.example lists them all)."
            )
