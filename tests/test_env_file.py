"""The settings files, .env.example and the .env that make writes, as different programs read them."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dotenv import dotenv_values

from receiver.config import Settings
from tests.processes import REPOSITORY

SECRETS = ("CALLBACK_TOKEN", "API_KEY")
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def as_docker(path: Path) -> dict[str, str]:
    """Read as `docker run --env-file` does: a value is everything after the first `=`, even quotes and #."""
    read = {}
    for line in path.read_text().splitlines():
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        assert equals, f"docker would take {name} from the environment of its caller"
        assert _NAME.fullmatch(name), f"docker refuses the name {name!r}"
        read[name] = value
    return read


def as_systemd(path: Path) -> dict[str, str]:
    """Read as systemd's EnvironmentFile= does: it strips values, and interprets quotes and backslashes."""
    read = {}
    for line in path.read_text().splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        assert equals, f"systemd ignores the line {line!r}"
        assert _NAME.fullmatch(name), f"systemd ignores the name {name!r}"
        assert not re.search(r"""["'\\]""", value), f"systemd would change the value of {name}"
        read[name] = value.strip()
    return read


def as_a_shell(path: Path) -> dict[str, str]:
    """Read as `set -a; . ./.env` does."""
    command = ["sh", "-c", f"set -a; . {path} && env -0"]
    variables = subprocess.run(command, env={}, capture_output=True, text=True, check=True).stdout
    read = dict(one.partition("=")[::2] for one in variables.split("\0") if one)
    return {name: value for name, value in read.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_")}


def as_dotenv(path: Path) -> dict[str, str]:
    """Read as Backstop does."""
    return {name: value or "" for name, value in dotenv_values(path).items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The .env that `make run` writes if there is none."""
    for name in ("Makefile", ".env.example"):
        shutil.copy(REPOSITORY / name, tmp_path)
    subprocess.run(["make", "--silent", ".env"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / ".env"


@pytest.mark.parametrize("read", [as_docker, as_systemd, as_a_shell, as_dotenv])
def test_every_program_reads_the_same_settings_from_the_file_that_make_writes(
    written: Path, read: Callable[[Path], dict[str, str]]
):
    settings, example = read(written), read(REPOSITORY / ".env.example")
    secrets = {name: settings.pop(name) for name in SECRETS}
    assert all(re.fullmatch(r"[\w-]{43}", secret) for secret in secrets.values())
    assert len(set(secrets.values())) == len(SECRETS)
    assert settings == {name: value for name, value in example.items() if name not in SECRETS}
    assert Settings.from_env(settings | secrets) == Settings.from_env(secrets)  # the defaults


def test_nobody_but_its_owner_can_read_it(written: Path):
    assert written.stat().st_mode & 0o077 == 0
