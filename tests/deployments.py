"""Reads the platforms' files and the pages of docs/deploying, so that tests can do what they say."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import REPOSITORY

PAGES = sorted((REPOSITORY / "docs/deploying").glob("*.md"))
OVERVIEW = REPOSITORY / "docs/deploying.md"
_BLOCK = re.compile(r"^( *)```\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, section: str = "") -> list[str]:
    """Return the code blocks of a page, or of one of its sections."""
    text = page.read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(block) for _, block in _BLOCK.findall(text)]


def first_recovered_callback() -> str:
    """Return the commands that each page ends with."""
    (commands,) = blocks(OVERVIEW, "A first recovered callback")
    return commands


def fresh_clone(directory: Path) -> None:
    """Copy the files of the repository, and nothing else, as a fresh clone has them."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (REPOSITORY / name).exists() and not name.startswith(("tests/samples/", "docs/screenshots/")):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)


def installed_venv(directory: Path) -> None:
    """Make a virtual environment that has what requirements.txt names, as the packages are installed here."""
    here = Path(sys.prefix)
    directory.mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (directory / name).symlink_to(here / name)
    (directory / "installed").touch()


@dataclass
class Image:
    """What a Dockerfile describes, made by hand in a directory: no daemon runs here."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    command: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    health: str = ""
    not_done: list[str] = field(default_factory=list)  # steps that need a real container

    def inside(self, path: str) -> Path:
        """Return where a path of the image lies."""
        whole = path if path.startswith("/") else f"{self.directory}/{path}"
        return self.root / os.path.normpath(whole).lstrip("/")

    def text(self, text: str) -> str:
        """Return a text of the image with the paths that exist here."""
        return re.sub(r"(?<![\w.])/(app|data|usr/local/bin)\b", rf"{self.root}/\1", text)


def build(dockerfile: Path, root: Path) -> Image:
    """Do the steps of a Dockerfile."""
    image = Image(root)
    joined = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, joined.splitlines()):
        instruction, _, rest = line.strip().partition(" ")
        _DO[instruction](image, rest.strip())
    return image


def _env(image: Image, rest: str) -> None:
    image.environ |= dict(part.split("=", 1) for part in shlex.split(rest))


def _workdir(image: Image, rest: str) -> None:
    image.directory = rest
    image.inside(rest).mkdir(parents=True, exist_ok=True)


def _copy(image: Image, rest: str) -> None:
    *sources, target = rest.split()
    for source in sources:
        assert not is_ignored(source), f".dockerignore keeps {source} out of the image"
        into_directory = target.endswith("/") or target == "."
        to = image.inside(target) / Path(source).name if into_directory else image.inside(target)
        to.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / source, to)


def _run(image: Image, rest: str) -> None:
    for command in rest.split(" && "):
        if command.startswith("python -m compileall"):
            subprocess.run(
                [sys.executable, *command.split()[1:]], cwd=image.inside(image.directory), check=True
            )
        else:
            image.not_done.append(command)


_DO = {
    "FROM": lambda image, rest: image.not_done.append(f"FROM {rest}"),
    "ENV": _env,
    "WORKDIR": _workdir,
    "COPY": _copy,
    "RUN": _run,
    "VOLUME": lambda image, rest: image.volumes.append(rest),
    "EXPOSE": lambda image, rest: None,
    "HEALTHCHECK": lambda image, rest: setattr(image, "health", rest.partition("CMD ")[2]),
    "ENTRYPOINT": lambda image, rest: setattr(image, "entrypoint", json.loads(rest)),
    "CMD": lambda image, rest: setattr(image, "command", json.loads(rest)),
}


def is_ignored(path: str) -> bool:
    """Tell whether .dockerignore keeps a path out. The last pattern that matches decides."""
    ignored = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").strip()
        if not pattern or pattern.startswith("#"):
            continue
        parents = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
        names = [pattern, pattern.removeprefix("**/")]
        if any(fnmatch.fnmatch(parent, name) for parent in parents for name in names):
            ignored = not line.startswith("!")
    return ignored


def read_unit(text: str) -> dict[str, list[str]]:
    """Return the directives of a systemd unit, each with its values."""
    unit: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            unit.setdefault(name, []).append(value)
    return unit
