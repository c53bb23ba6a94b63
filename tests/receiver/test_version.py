import tomllib

from receiver.version import VERSION
from tests.sources import ROOT


def test_it_is_the_version_of_the_project():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
