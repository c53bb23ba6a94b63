"""What must stay true of the repository itself."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from receiver.upstream.services import SERVICES
from tests.conftest import THROUGH_POOLER
from tests.sources import ROOT, SOURCES, imports_of
from tests.workers import ONE_WORKER_EACH


def test_the_ledger_knows_upstreams_results_and_errors_and_nothing_else_of_it():
    for path in (ROOT / "receiver" / "ledger").rglob("*.py"):
        known = {name for name in imports_of(path) if name.startswith("receiver.upstream")}
        assert known <= {f"receiver.upstream.{name}" for name in ("results", "errors", "services")}, path


def test_nothing_but_tests_imports_tests():
    for path in [*SOURCES, ROOT / "wsgi.py", ROOT / "gunicorn.conf.py"]:
        assert not {name for name in imports_of(path) if name.split(".")[0] == "tests"}, path


@pytest.mark.parametrize(
    "module",
    [
        *("reconcile.__main__", "receiver.ledger.store", "receiver.ledger.reading.queries"),
        *("receiver.ledger.event_json", "receiver.spool.spool", "receiver.upstream.client"),
    ],
)
def test_it_loads_no_flask(module: str):
    code = f"import {module}, sys; sys.exit('flask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("module", ["receiver.ledger.kinds", "receiver.ledger.patience"])
def test_pure_rules_load_no_database(module: str):
    code = f"import {module}, sys; sys.exit('peewee' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_importing_the_application_starts_nothing():
    code = (
        "import threading, receiver.app, reconcile.start\n"
        "from receiver.config import Settings\n"
        "receiver.app.create_app(Settings.from_env({'CALLBACK_TOKEN': 'a' * 16, 'API_KEY': 'b' * 16, 'DATABASE_URL': 'sqlite:////nowhere/x',"
        " 'RECONCILE_IN_WEB': 'true', 'ACEDATACLOUD_API_TOKEN': 'c'}))\n"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_upstreams_services_are_named_in_one_place():
    folders = (path for folder in ("receiver", "reconcile") for path in (ROOT / folder).rglob("*.*"))
    texts = [*folders, ROOT / "wsgi.py", ROOT / "gunicorn.conf.py"]
    named = re.compile(rf"\b({'|'.join(map(re.escape, SERVICES))})\b", re.IGNORECASE)
    found = [
        path.name
        for path in texts
        if path.suffix in {".py", ".html", ".js", ".css", ".sql"} and named.search(path.read_text())
    ]
    assert sorted(found) == ["0010_services.py", "services.py"]


@pytest.mark.parametrize("name", ["requirements.in", "requirements-dev.in"])
def test_every_requirement_is_pinned_and_installed(name: str):
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and line[0] not in "#-"]
    for requirement in map(Requirement, lines):
        assert str(requirement.specifier) == f"=={version(requirement.name)}"


@pytest.mark.parametrize("name", ["requirements", "requirements-dev", "bench/requirements"])
def test_every_package_is_locked_by_the_hashes_of_its_files(name: str):
    """`make hashes` wrote the .txt after the last change of the .in."""
    locked = (ROOT / f"{name}.txt").read_text().replace("\\\n", "").splitlines()
    found = {_pinned(line.split()[0]): line.count("--hash=sha256:") for line in locked if line[0] != "#"}
    assert found.keys() == {_pinned(line) for line in _pins(ROOT / f"{name}.in")}
    assert min(found.values()) > 0


def _pinned(line: str) -> tuple[str, str]:
    requirement = Requirement(line)
    return canonicalize_name(requirement.name), str(requirement.specifier)


def _pins(path: Path) -> set[str]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    others = [path.parent / line.split()[1] for line in lines if line.startswith("-r ")]
    return {line for line in lines if line[0] != "-"}.union(*map(_pins, others))


def test_upstreams_clients_are_pinned():
    lines = (ROOT / "tests/clients/requirements.txt").read_text().splitlines()
    for requirement in (Requirement(line) for line in lines if line and line[0] != "#"):
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement


def test_what_the_requirements_need_is_pinned_too():
    pinned = {
        Requirement(line).name.lower().replace("_", "-")
        for name in ("requirements.in", "requirements-dev.in")
        for line in (ROOT / name).read_text().splitlines()
        if line and line[0] not in "#-"
    }
    for name in pinned:
        for requirement in map(Requirement, requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert requirement.name.lower().replace("_", "-") in pinned, f"{name} needs {requirement}"


def test_no_two_migrations_have_one_number():
    names = sorted(path.name for path in (ROOT / "receiver/ledger/migrations").glob("*.py"))
    assert all(re.match(r"\d{4}_[a-z_]+\.py$", name) for name in names)
    assert len({name[:4] for name in names}) == len(names)


def test_procfile_and_platform_files_start_what_exists():
    commands = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert commands["release"] == "flask --app wsgi migrate"
    assert commands["web"] == "python -m receiver.web --bind 0.0.0.0:${PORT:-8000}"
    assert commands["reconcile"] == "python -m reconcile"


def test_fly_ends_machines_gently_and_never_has_none_that_answers():
    fly = tomllib.loads((ROOT / "fly.toml").read_text())
    assert fly["kill_signal"] == "SIGTERM"
    graceful = re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)
    assert fly["kill_timeout"] > int(graceful[1])
    assert fly["deploy"] == {"release_command": "flask --app wsgi migrate", "strategy": "bluegreen"}
    assert fly["processes"]["web"] == "python -m receiver.web --bind 0.0.0.0:8000"
    service = fly["http_service"]
    assert (service["auto_stop_machines"], service["auto_start_machines"]) == ("off", True)
    assert (service["min_machines_running"], service["internal_port"]) == (1, 8000)
    assert service["concurrency"]["type"] == "requests"
    assert service["checks"][0]["path"] == "/healthz"
    assert fly["primary_region"]


def test_one_version_of_python_is_named_everywhere():
    wanted = (ROOT / ".python-version").read_text().strip()
    assert f"FROM python:{wanted}-slim" in (ROOT / "Dockerfile").read_text()


def test_what_the_tests_treat_apart_exists():
    for path in (*THROUGH_POOLER, *ONE_WORKER_EACH):
        assert (ROOT / path).exists(), path


def test_no_two_packages_install_the_same_file():
    # Which of the two is there would depend on the order of the installation.
    owners: dict[str, str] = {}
    for each in distributions():
        for file in each.files or ():
            if file.parts[0] in {"..", "."} or "__pycache__" in file.parts:
                continue
            assert owners.setdefault(str(file), each.name) == each.name, file
