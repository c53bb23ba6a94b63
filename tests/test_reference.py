"""What docs/api.md and docs/reference.md list, compared with the application; and the links between the documents."""

import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.web.filters import FIELDS
from tests.sources import ROOT

API = (ROOT / "docs/api.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
# Files, and what the forms of the pages send.
NOT_LISTED = {"GET /static/<>", "GET /favicon.ico", "POST /tasks", "POST /tasks/<>", "POST /callback-url"}
NOT_LISTED |= {"POST /forwards/<>", "GET /forwards/resend", "POST /forwards/resend", "POST /resendings/<>"}
NOT_LISTED |= {"GET /endpoints/<>", "POST /endpoints/<>", "POST /upstream"}


@pytest.fixture
def app(client: FlaskClient) -> Flask:
    return client.application


def listed_routes() -> set[str]:
    """Return the routes of the first column of its table, like `GET /tasks/<>`."""
    table = API.partition("\n## Routes\n")[2].partition("\n### ")[0]
    routes: set[str] = set()
    for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE):
        method = "GET"
        for code in re.findall(r"`([^`]+)`", cell):
            method, _, path = code.rpartition(" ") if " " in code else (method, "", code)
            whole = path.replace("[", "").replace("]", "")
            routes |= {f"{method} {_plain(each)}" for each in (whole, path.partition("[")[0])}
    return routes


def _plain(path: str) -> str:
    return re.sub(r"<[^>]*>", "<>", path).rstrip("/") or "/"


def test_it_lists_every_route_and_no_other(app):
    served = {
        f"{method} {_plain(rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert listed_routes() == served - NOT_LISTED


def test_it_lists_every_command_of_ours(app):
    listed = set(re.findall(r"^\| `flask --app wsgi ([a-z-]+)` \|", REFERENCE, re.MULTILINE))
    assert listed == set(app.cli.commands)


def test_it_lists_every_filter_of_tasks():
    table = API.partition("\n## Lists\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert set(FIELDS) <= {name for cell in cells for name in re.findall("`([^`]+)`", cell)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path):
    links = re.findall(r"\]\(([^)]+)\)|<img src=\"([^\"]+)\"", document.read_text())
    for link in (one or other for one, other in links):
        path, _, part = link.partition("#")
        if path.startswith("https:"):
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not part or part in parts_of(target), link


def parts_of(document: Path) -> set[str]:
    """Return how GitHub names the headings of a document in links."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
