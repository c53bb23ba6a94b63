"""What docs/deploying says, done as far as it can be done here; and what the platforms' files name.

There is no Docker daemon, no account of a platform, and no systemd as the first process. So the image's steps are
done by hand, the unit's directives are followed, and `CANNOT` lists the commands that are only read.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import urllib3
from dotenv import dotenv_values

from receiver.app import create_app
from receiver.config import Settings
from receiver.supervisor import STOP_WITHIN_SECONDS
from tests import deployments
from tests.deployments import OVERVIEW, PAGES, Image, blocks, first_recovered_callback, read_unit
from tests.processes import REPOSITORY, free_port, wait_until
from tests.upstream import Options, StandIn

WITHIN_SECONDS = 90
SETTINGS = set(re.findall(r"^([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE))
# Variables that are no settings of ours: of the shell, of the platforms, of the other programs.
OTHERS = {"TASK", "HOME", "PORT", "POSTGRES_PASSWORD", "POSTGRES_USER", "POSTGRES_DB", "RENDER_EXTERNAL_URL"}
OTHERS |= {"PYTHONPATH", "PYTHONUNBUFFERED"}
# They need a platform, another machine, a daemon, or change this machine.
CANNOT = {"heroku", "fly", "docker", "git", "ssh", "sudo"}
DONE = {"make", "curl", "until", "set", ".", "flask", "echo", "openssl", "cd", "export"}


@pytest.fixture
def upstream() -> Iterator[StandIn]:
    with StandIn(Options(latency=0, token="token-of-the-account")) as stand_in:
        yield stand_in


class Deployment:
    """A deployment in a fresh directory, which is reached as its page says."""

    def __init__(self, directory: Path, upstream: StandIn) -> None:
        self.directory = directory
        self.began = time.monotonic()
        self.port = free_port()
        self.filled_in = {
            "ACEDATACLOUD_API_TOKEN": upstream.options.token,
            "ACEDATACLOUD_API_BASE_URL": upstream.url,
            "PUBLIC_URL": f"http://127.0.0.1:{self.port}",
            "PORT": str(self.port),
        }

    def write_env(self, file: Path) -> None:
        """Make the settings by `make .env`, and fill in what a person fills in."""
        if not (self.directory / ".env").exists():
            self.shell("make .env")
        text = (self.directory / ".env").read_text()
        for name, value in self.filled_in.items():
            text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        (self.directory / ".env").write_text(text)
        if file != self.directory / ".env":
            shutil.move(self.directory / ".env", file)

    def shell(self, script: str, cwd: Path | None = None, **more: str) -> str:
        """Run commands as a person types them, and return what they print."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.directory), **more}
        ran = subprocess.run(
            ["bash", "-e"],
            input=script,
            cwd=cwd or self.directory,
            env=environ,
            capture_output=True,
            text=True,
            timeout=WITHIN_SECONDS,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def start(
        self, command: list[str] | str, log: Path, cwd: Path, **environ: str
    ) -> subprocess.Popen[bytes]:
        with open(log, "wb") as output:
            return subprocess.Popen(
                command,
                shell=isinstance(command, str),
                cwd=cwd,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **environ},
                stdout=output,
                stderr=output,
            )

    def wait_until_up(self) -> None:
        def is_up() -> bool:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                answer = urllib3.request("GET", f"http://127.0.0.1:{self.port}/readyz", retries=False)
                return answer.status == 200
            return False

        wait_until(is_up, seconds=60)

    def recover(self, env: Path) -> None:
        """Recover a first callback, by the page's own commands, in time."""
        told = self.shell(f"set -a; . {env}; set +a\n{first_recovered_callback()}")
        assert '"settled_by":"lookup"' in told.replace(" ", "")
        assert time.monotonic() - self.began < WITHIN_SECONDS

    def check(self, command: str, cwd: Path, **environ: str) -> None:
        """Run `check` as a page says. Bad is only that this machine's disk may not last."""
        ran = subprocess.run(
            f"{command} --json",
            shell=True,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **environ},
            capture_output=True,
            text=True,
        )
        bad = [one["said"] for one in json.loads(ran.stdout)["findings"] if one["level"] == "bad"]
        assert [said for said in bad if "does not last" not in said] == [], ran.stderr


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> Iterator[None]:
    """Stop a deployment as its platform does. It must end by itself, with 0."""
    try:
        yield
        process.send_signal(number)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_one_machine_from_nothing_to_a_first_recovered_callback(tmp_path: Path, upstream: StandIn):
    deployments.fresh_clone(tmp_path)
    deployments.installed_venv(tmp_path / ".venv")
    page = REPOSITORY / "docs/deploying/one-machine.md"
    write, run, checked = blocks(page)
    deployment = Deployment(tmp_path, upstream)
    deployment.shell(write)
    deployment.write_env(tmp_path / ".env")
    # As make would end by the signal itself, what it runs is told to end.
    process = deployment.start(f"exec {run}", tmp_path / "log", tmp_path)
    try:
        deployment.wait_until_up()
        deployment.recover(tmp_path / ".env")
        *prepare, check = checked.strip().splitlines()
        told = deployment.shell("\n".join([*prepare, f"{check} --json || true"]))
        bad = [one["said"] for one in json.loads(told)["findings"] if one["level"] == "bad"]
        assert [said for said in bad if "does not last" not in said] == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)
    assert "Stopped." in (tmp_path / "log").read_text()


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return deployments.build(REPOSITORY / "Dockerfile", tmp_path / "image")


def test_the_image_by_hand_from_nothing_to_a_first_recovered_callback(
    tmp_path: Path, upstream: StandIn, image: Image
):
    (tmp_path / "clone").mkdir()
    deployments.fresh_clone(tmp_path / "clone")
    deployment = Deployment(tmp_path / "clone", upstream)
    deployment.write_env(tmp_path / "clone/.env")
    given = {name: text or "" for name, text in dotenv_values(tmp_path / "clone/.env").items()}
    environ = {name: image.text(text) for name, text in image.environ.items()} | given
    environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # The user of the image cannot be made here, so the service keeps ours: see the test of the entrypoint.
    process = deployment.start(image.command, tmp_path / "log", image.inside("/data"), **environ)
    with ending(process):
        deployment.wait_until_up()
        subprocess.run(image.health, shell=True, env=environ, check=True)
        deployment.recover(tmp_path / "clone/.env")
        deployment.check("flask --app wsgi check", image.inside("/data"), **environ)
    assert image.inside("/data/backstop.db").exists()
    assert not list(image.inside("/app").glob("*.db*"))
    assert image.not_done == [
        "FROM python:3.13-slim",
        "pip install --no-cache-dir --disable-pip-version-check -r requirements.txt",
        "useradd --uid 10001 --home-dir /data backstop",
    ]


@pytest.mark.parametrize("owner", [0, 10001])
def test_the_entrypoint_takes_over_a_volume_and_drops_all_rights(image: Image, owner: int):
    """As root, where we are root. Otherwise what must hold is that it changes nothing."""
    data = image.inside("/data")
    (data / "restored.db").touch()
    is_root = os.getuid() == 0
    if is_root:
        for path in (data, data / "restored.db"):
            os.chown(path, owner, owner)
        for path in (data, *data.parents):  # pytest's directories are ours alone
            if path.stat().st_uid == 0 and not path.stat().st_mode & stat.S_IXOTH:
                path.chmod(path.stat().st_mode | stat.S_IXOTH)
    entrypoint = image.inside("/usr/local/bin/entrypoint.sh")
    entrypoint.write_text(image.text(entrypoint.read_text()))
    script = "touch fresh && id -u && echo $HOME && grep NoNewPrivs /proc/self/status"
    ran = subprocess.run(
        ["sh", str(entrypoint), "sh", "-c", script], cwd=data, capture_output=True, text=True, check=True
    )
    if is_root:
        assert ran.stdout.split() == ["10001", str(data), "NoNewPrivs:", "1"]
        assert {path.stat().st_uid for path in (data, *data.iterdir())} == {10001}
    else:
        assert ran.stdout.split()[0] == str(os.getuid())


def test_the_image_holds_what_the_service_needs_and_nothing_else(image: Image):
    held = {str(path.relative_to(image.root)) for path in image.root.rglob("*") if path.is_file()}
    assert {path.partition("/")[0] for path in held} == {"app", "usr"}
    tops = {path.split("/")[1] for path in held if path.startswith("app/")}
    assert tops == {"receiver", "reconcile", "wsgi.py", "gunicorn.conf.py", "requirements.txt"}
    for secret in (".env", "backstop.db", ".git/config", "tests/conftest.py", "receiver/__pycache__/a.pyc"):
        assert deployments.is_ignored(secret), secret
    assert image.volumes == ["/data"]
    for needed in (REPOSITORY / "receiver").rglob("*"):
        if needed.is_file() and "__pycache__" not in needed.parts:
            assert f"app/{needed.relative_to(REPOSITORY)}" in held


@pytest.fixture
def unit() -> dict[str, list[str]]:
    return read_unit((REPOSITORY / "deploy/backstop.service").read_text())


def test_the_unit_from_nothing_to_a_first_recovered_callback(
    tmp_path: Path, upstream: StandIn, unit: dict[str, list[str]]
):
    code, state = tmp_path / "opt", tmp_path / "state"
    code.mkdir()
    deployments.fresh_clone(code)
    deployments.installed_venv(code / ".venv")
    state.mkdir(int(unit["StateDirectoryMode"][0], 8))
    deployment = Deployment(code, upstream)
    deployment.write_env(state / ".env")
    environ = dict(
        part.split("=") for part in unit["Environment"][0].replace("/opt/backstop", str(code)).split()
    )
    command = unit["ExecStart"][0].replace("/opt/backstop", str(code)).split()
    assert unit["WorkingDirectory"] == [f"/var/lib/{unit['StateDirectory'][0]}"]
    process = deployment.start(command, tmp_path / "log", state, **environ)
    with ending(process):
        deployment.wait_until_up()
        deployment.recover(state / ".env")
        line = next(
            line
            for line in blocks(REPOSITORY / "docs/deploying/systemd.md")[-1].splitlines()
            if "check" in line
        )
        deployment.check(line.removeprefix("sudo -u backstop ").replace("/opt/backstop", str(code)), state)
    assert (state / "backstop.db").exists()


def test_systemd_accepts_the_unit_and_waits_long_enough(tmp_path: Path, unit: dict[str, list[str]]):
    assert int(unit["TimeoutStopSec"][0]) > STOP_WITHIN_SECONDS
    assert (unit["KillMode"], unit["Restart"]) == (["mixed"], ["always"])
    verify = needed("systemd-analyze")
    text = (REPOSITORY / "deploy/backstop.service").read_text()
    (tmp_path / "backstop.service").write_text(text.replace(unit["ExecStart"][0].split()[0], sys.executable))
    ran = subprocess.run([verify, "verify", tmp_path / "backstop.service"], capture_output=True, text=True)
    said = [line for line in ran.stderr.splitlines() if "backstop" in line and "User" not in line]
    assert said == []


def needed(program: str) -> str:
    """Return the path of another program. Its test is left out without it, except in continuous integration."""
    path = shutil.which(program)
    if path is None:
        assert not os.environ.get("CI"), f"{program} is missing"
        pytest.skip(f"{program} is not installed")
    return path


def test_compose_follows_its_specification():
    checker = needed("check-jsonschema")
    subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", REPOSITORY / "compose.yaml"], check=True
    )


def test_caddy_accepts_its_configuration():
    caddy = needed("caddy")
    command = [caddy, "validate", "--adapter", "caddyfile", "--config", REPOSITORY / "deploy/Caddyfile"]
    environ = os.environ | {"PUBLIC_URL": "https://backstop.example.com"}
    subprocess.run(command, check=True, env=environ, capture_output=True)


def test_every_platform_waits_longer_than_a_stop_takes():
    texts = {name: (REPOSITORY / name).read_text() for name in ("compose.yaml", "render.yaml", "fly.toml")}
    texts |= {
        name: (REPOSITORY / name).read_text() for name in ("fly.sqlite.toml", "docs/deploying/docker.md")
    }
    waits = {
        "compose.yaml": r"stop_grace_period: (\d+)s # requests",
        "render.yaml": r"maxShutdownDelaySeconds: (\d+)",
        "fly.toml": r"^kill_timeout = (\d+)",
        "fly.sqlite.toml": r"^kill_timeout = (\d+)",
        "docs/deploying/docker.md": r"--stop-timeout (\d+)",
    }
    for name, pattern in waits.items():
        found = re.findall(pattern, texts[name], re.MULTILINE)
        assert found, name
        assert all(int(seconds) > STOP_WITHIN_SECONDS for seconds in found), name


def test_fly_with_sqlite_has_one_machine_its_volume_and_no_release_command():
    one = tomllib.loads((REPOSITORY / "fly.sqlite.toml").read_text())
    many = tomllib.loads((REPOSITORY / "fly.toml").read_text())
    assert one["mounts"]["destination"] == "/data"
    assert "release_command" not in one["deploy"]  # its machine has no volume
    assert "processes" not in one  # so the image's own command runs
    same = ("kill_signal", "kill_timeout", "vm")
    assert {name: one[name] for name in same} == {name: many[name] for name in same}
    assert one["http_service"]["force_https"] is False
    assert "--ha=false" in " ".join(blocks(REPOSITORY / "docs/deploying/fly.md", "One machine with SQLite"))


COMMANDS = [
    (page.name, line)
    for page in (*PAGES, OVERVIEW)
    for block in blocks(page)
    if "reverse_proxy" not in block  # Caddy's own file
    for line in block.replace("\\\n", " ").strip().splitlines()
]
ALL_TEXT = "\n".join(line for _, line in COMMANDS)


def test_every_command_is_of_a_known_kind():
    unknown = {
        (page, line)
        for page, line in COMMANDS
        if not re.match(r"[A-Z_]+=", line) and line.split()[0] not in CANNOT | DONE
    }
    assert unknown == set()


@pytest.mark.parametrize(
    "name",
    [
        "compose.yaml",
        "render.yaml",
        "fly.toml",
        "fly.sqlite.toml",
        "app.json",
        "Dockerfile",
        "deploy/Caddyfile",
    ],
)
def test_every_variable_in_a_platforms_file_is_a_setting(name: str):
    text = (REPOSITORY / name).read_text()
    patterns = (r"^ +([A-Z][A-Z_]+): ", r"key: ([A-Z_]+)", r"envVarKey: ([A-Z_]+)", r'"([A-Z][A-Z_]+)": \{')
    patterns += (r"\$\{?\$?([A-Z][A-Z_]+)", r"(?:^ENV|\s)([A-Z][A-Z_]+)=\S")
    named = {found for pattern in patterns for found in re.findall(pattern, text, re.MULTILINE)}
    assert named - SETTINGS - OTHERS == set()


def test_every_variable_in_a_page_is_a_setting():
    named = set(re.findall(r"\b([A-Z][A-Z_]+)=", ALL_TEXT)) | set(
        re.findall(r"\$\{?([A-Z][A-Z_]+)", ALL_TEXT)
    )
    named |= {
        name for page in (*PAGES, OVERVIEW) for name in re.findall(r"`([A-Z]+_[A-Z_]+)[`=]", page.read_text())
    }
    assert named - SETTINGS - OTHERS == set()


def test_every_setting_is_in_the_file_that_the_pages_begin_with():
    class Asked(dict[str, str]):
        """Notes what is read."""

        names: ClassVar[set[str]] = set()

        def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
            self.names.add(name)
            return {"API_KEY": "a" * 16, "CALLBACK_TOKEN": "b" * 16}.get(name, default)

    Settings.from_env(Asked())
    platforms = {"DYNO", "FLY_APP_NAME", "RENDER", "RENDER_EXTERNAL_URL", "HEROKU_APP_DEFAULT_DOMAIN_NAME"}
    assert Asked.names - platforms == SETTINGS


def test_what_each_platform_cannot_do_without_is_set_there():
    for name in ("render.yaml", "app.json"):
        text = (REPOSITORY / name).read_text()
        for needed_setting in ("ACEDATACLOUD_API_TOKEN", "CALLBACK_TOKEN", "API_KEY"):
            assert needed_setting in text, name
    for page in ("heroku.md", "fly.md"):
        text = (REPOSITORY / "docs/deploying" / page).read_text()
        for needed_setting in ("ACEDATACLOUD_API_TOKEN=", "CALLBACK_TOKEN=", "API_KEY="):
            assert needed_setting in text, page


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_module_target_command_and_file_that_a_page_or_file_names_exists(ledger, make_settings):
    files = ("Procfile", "Dockerfile", "compose.yaml", "render.yaml", "fly.toml", "deploy/backstop.service")
    texts = [(REPOSITORY / name).read_text() for name in files]
    text = "\n".join([ALL_TEXT, *(page.read_text() for page in (*PAGES, OVERVIEW)), *texts])
    for module in set(re.findall(r"python -m ([a-z_.]+)", text)) - {"venv", "compileall"}:
        assert importlib.util.find_spec(module), module
    targets = set(re.findall(r"^([a-z.-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(?:sudo )?make (?:-C \S+ )?([a-z.]+)", ALL_TEXT, re.MULTILINE)) <= targets
    commands = create_app(make_settings()).cli.commands
    assert set(re.findall(r"flask --app wsgi ([a-z-]+)", text)) <= set(commands)
    for file in set(
        re.findall(r"--config (fly[a-z.]+toml)|/opt/backstop/(deploy/\S+)|see (docs/\S+\.md)", text)
    ):
        assert (REPOSITORY / next(filter(None, file)).rstrip("}`")).exists(), file


def test_each_page_is_linked_numbered_and_ends_with_a_first_recovered_callback():
    for page in PAGES:
        assert f"deploying/{page.name}" in OVERVIEW.read_text()
        text = page.read_text()
        assert "1. " in text
        assert "flask --app wsgi check" in text
        assert "../deploying.md#a-first-recovered-callback" in text
