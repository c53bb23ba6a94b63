"""The commands as a whole: their overview, their help, completion, and what they log."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import pytest

from receiver.app import create_app
from receiver.checks.database import check_database
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from tests.processes import Backstop
from tests.sources import ROOT

ADDRESS = "The status page: http://127.0.0.1:8000/ (sign in with the API_KEY in .env)"


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "variables", [{}, {"ACEDATACLOUD_API_TOKEN": ""}, {"PUBLIC_URL": "https://here.example"}]
)
def test_the_next_steps_name_the_settings_that_are_missing(make_settings, variables):
    app = create_app(make_settings(**variables))
    lines = app.test_cli_runner().invoke(args=["next-steps"]).output.splitlines()
    missing = [line.removeprefix("Still missing in .env: ").partition(",")[0] for line in lines[1:]]
    assert lines[0] == ADDRESS
    assert missing == [
        *(["ACEDATACLOUD_API_TOKEN"] if "ACEDATACLOUD_API_TOKEN" in variables else []),
        *(["PUBLIC_URL"] if "PUBLIC_URL" not in variables else []),
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_migrating_tells_of_a_new_ledger(make_settings, tmp_path):
    settings = replace(make_settings(), database_url=f"sqlite:///{tmp_path}/new.db")
    init_database(settings.database_url)
    runner = create_app(settings).test_cli_runner()
    told = [runner.invoke(args=["migrate"]).output for _ in range(2)]
    assert told[0].startswith("Applied 0001_ledger.\n")
    assert told[0].endswith(f".\nMade {tmp_path}/new.db: a new ledger, with nothing in it.\n")
    assert told[1] == "The schema is up to date.\n"
    database.obj.close_all()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_migrating_tells_what_was_applied_before_it_failed(make_settings, tmp_path):
    settings = replace(make_settings(), database_url=f"sqlite:///{tmp_path}/new.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as stranger:
        stranger.execute("CREATE TABLE event (id INTEGER)")
    init_database(settings.database_url)
    told = create_app(settings).test_cli_runner().invoke(args=["migrate"])
    *applied, problem = told.output.splitlines()
    assert (applied[0], applied[-1]) == ("Applied 0001_ledger.", "Applied 0010_services.")
    assert (told.exit_code, problem.startswith("Error: The database cannot be migrated: ")) == (1, True)
    database.obj.close_all()


@pytest.mark.usefixtures("ledger")
def test_a_schema_of_a_newer_version_is_told(make_settings):
    settings = make_settings()
    app = create_app(settings)
    with database.connection_context():
        database.execute_sql(
            "INSERT INTO schema_migration (name, applied) VALUES ('9999_later', '2030-01-01 00:00:00')"
        )
    told = app.test_cli_runner().invoke(args=["migrate"]).output
    assert told.startswith("The schema is of a newer version of Backstop: its last migration is 9999_later.")
    (found,) = (one for one in check_database(settings) if one.check == "schema")
    assert (found.level, "its last migration is 9999_later" in found.said) == ("warning", True)


def test_the_callback_url_may_name_a_service(make_client):
    runner = make_client(PUBLIC_URL="https://backstop.example").application.test_cli_runner()
    plain = runner.invoke(args=["callback-url"]).output.strip()
    assert runner.invoke(args=["callback-url", "--service", "suno"]).output.strip() == f"{plain}?service=suno"
    assert runner.invoke(args=["callback-url", "--service", "unheard-of"]).exit_code == 2


def every_command(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*names, name)
        if isinstance(command, click.Group):
            yield from every_command(command, *names, name)


@pytest.mark.usefixtures("ledger")
def test_each_help_fits_80_columns_and_begins_with_a_sentence_that_the_overview_shows_whole(make_settings):
    app = create_app(make_settings())
    overview = app.test_cli_runner().invoke(args=["--help"]).output
    of_forward = app.test_cli_runner().invoke(args=["forward", "--help"]).output
    assert not re.search(r"\w\.\.\.$", overview + of_forward, re.MULTILINE)
    for names in every_command(app.cli):
        told = app.test_cli_runner().invoke(args=[*names, "--help"]).output
        assert max(map(len, told.splitlines())) <= 80, told
        assert re.search(rf"^ +{names[-1]} +[A-Z].*\.$", overview + of_forward, re.MULTILINE), names


@pytest.fixture
def backstop(tmp_path) -> Iterator[Backstop]:
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        yield backstop


def test_the_overview_has_our_commands_in_groups(backstop):
    told = backstop.command("flask", "--app", "wsgi", "--help").stdout
    groups = re.findall(r"^  (\w+):$", told, re.MULTILINE)
    assert groups == ["Begin", "Watch", "Look", "Act", "Keep"]
    assert re.search(r"Act:\n +register +Register", told)


def test_a_command_logs_nothing_that_went_well(backstop):
    backstop.migrate()
    told = backstop.command("flask", "--app", "wsgi", "register", "t1", "t2")
    assert (told.stdout, told.stderr) == ("2 registered: 2 new, 0 known before.\n", "")


def complete(backstop: Backstop, shell: str, press_tab: str) -> list[str]:
    """Return what a shell offers once it was told how, as the guide says."""
    guide = (ROOT / "docs/operating.md").read_text()
    (lines,) = re.findall(rf"^```\n((?:.+\n)*eval .*{shell}_source.*\n)```$", guide, re.MULTILINE)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(backstop.directory), **backstop.environ}
    told = subprocess.run(
        [shell, "-c", lines + press_tab], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


def test_bash_completes_the_commands_as_the_guide_tells(backstop):
    tab = "COMP_WORDS=(flask --app wsgi ta); COMP_CWORD=3; _flask_completion flask; echo ${COMPREPLY[@]}"
    assert complete(backstop, "bash", tab) == ["task", "tasks"]


@pytest.mark.skipif(not shutil.which("zsh") and not os.environ.get("CI"), reason="zsh is not installed")
def test_zsh_completes_the_commands_as_the_guide_tells(backstop):
    shows = "_describe() { for one in ${(P)3}; do print -r -- ${one%%:*}; done }"
    tab = f"{shows}; words=(flask --app wsgi ta); CURRENT=4; _flask_completion; echo $_comps[flask]"
    assert complete(backstop, "zsh", tab) == ["task", "tasks", "_flask_completion"]
