"""python -m receiver [gunicorn's options]: the whole service on one machine.

It brings the schema up to date, and runs the receiver and the reconciler as processes of their own.
"""

import logging
import sys

from gunicorn.config import Config

from receiver.config import Settings, overridden
from receiver.logs import configure_logging
from receiver.sentry import start_sentry
from receiver.supervisor import Program, Supervisor
from receiver.web.__main__ import require_port

log = logging.getLogger("receiver")

# So long a migration goes first. Then the receiver starts all the same: callbacks wait in its spool.
_HEAD_START_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Run the service until a signal comes. Returns the exit code; raises SystemExit for bad settings."""
    # Exits for --help and for a bad option, which would end the receiver again and again.
    Config(usage="%(prog)s [gunicorn's options]", prog="python -m receiver").parser().parse_args(arguments)
    settings = Settings.from_env()
    configure_logging(settings.log_format)
    start_sentry(settings.sentry_dsn)
    _tell_overridden()
    require_port(settings, arguments)
    return Supervisor(_programs(settings, arguments)).run()


def _tell_overridden() -> None:
    if names := overridden():
        log.warning(
            "The environment and .env differ in %s. The environment counts: unset them there to use .env.",
            ", ".join(names),
        )


def _programs(settings: Settings, arguments: list[str]) -> list[Program]:
    python = sys.executable
    migration = Program("The migration", [python, "-m", "flask", "--app", "wsgi", "migrate"], ends=True)
    web = [python, "-m", "receiver.web", *arguments]
    programs = [migration, Program("The receiver", web, after=migration, waits_at_most=_HEAD_START_SECONDS)]
    if settings.reconcile_in_web:
        return programs
    if settings.api_token is None:
        log.error(
            "NO RECONCILER RUNS: ACEDATACLOUD_API_TOKEN is missing. Callbacks are kept, but lost ones are not"
            " recovered, none is confirmed, and your app is told nothing. Copy the token from"
            " https://platform.acedata.cloud into the settings and start again."
        )
        return programs
    return [*programs, Program("The reconciler", [python, "-m", "reconcile"], after=migration)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
