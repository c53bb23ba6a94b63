"""What docs/design.md shows, compared with the code: its picture of the rooms, and the links to its parts."""

import re
from collections import defaultdict
from pathlib import Path

from tests.sources import ROOT, SOURCES, imports_of, name_of

DESIGN = (ROOT / "docs/design.md").read_text()
# A box of the picture: its name there, its label, and where its arrows lead.
BOX = re.compile(r'^ +(\w+)\["(.+)<br>(.+)"\](?: --> (.+))?$', re.MULTILINE)
BOXES = {name: (title, text, arrows) for name, title, text, arrows in BOX.findall(DESIGN)}
OUTSIDE = {
    name: {f"receiver.{module}" for module in BOXES[name][1].split(", ")} for name in ("tools", "assembly")
}
ROOMS = {name: title.replace("/", ".") for name, (title, _, _) in BOXES.items() if name not in OUTSIDE}
ARROWS = {(ROOMS[name], ROOMS[to]) for name in ROOMS for to in BOXES[name][2].split(" & ") if BOXES[name][2]}


def room_of(module: str) -> str | None:
    rooms = [room for room in ROOMS.values() if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def ours(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] in {"receiver", "reconcile", "wsgi"}}


def drawn() -> dict[tuple[str, str], list[str]]:
    """Return the arrows between the rooms, and for each the modules that import across it."""
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in SOURCES:
        room = room_of(name_of(path))
        for other in {room_of(name) for name in ours(path)} - {room, None}:
            if room:
                arrows[room, str(other)].append(name_of(path))
    return arrows


def test_the_picture_has_the_arrows_of_the_code():
    arrows = drawn()
    assert {arrow: modules for arrow, modules in arrows.items() if arrow not in ARROWS} == {}
    assert ARROWS - set(arrows) == set()


def test_the_picture_has_a_box_for_each_folder_and_for_each_module_outside_of_the_rooms():
    folders = {name_of(path / "__init__.py") for path in {path.parent for path in SOURCES}}
    assert folders - {"receiver", "receiver.ledger.migrations"} == set(ROOMS.values())
    outside = {name_of(path) for path in SOURCES if room_of(name_of(path)) is None}
    assert outside - {"receiver"} == set().union(*OUTSIDE.values())


def test_arrows_lead_one_way():
    above: dict[str, set[str]] = {
        room: {to for start, to in ARROWS if start == room} for room in ROOMS.values()
    }
    while free := [room for room, others in above.items() if not others & set(above)]:
        for room in free:
            del above[room]
    assert above == {}


def test_tools_import_each_other_only_and_rooms_import_nothing_outside_but_tools():
    for path in SOURCES:
        unknown = {name for name in ours(path) if room_of(name) is None} - OUTSIDE["tools"]
        if name_of(path) not in OUTSIDE["assembly"]:
            assert unknown == set(), path
        if name_of(path) in OUTSIDE["tools"]:
            assert ours(path) <= OUTSIDE["tools"], path


def test_a_module_that_assembles_nothing_imports_few_others():
    assembling = OUTSIDE["assembly"] | {"receiver.web.background", "reconcile.start"}
    numbers = {name_of(path): len(ours(path)) for path in SOURCES}
    assert {name: number for name, number in numbers.items() if number > 15} == {
        name: numbers[name] for name in assembling if numbers[name] > 15
    }


def test_the_receiver_never_imports_the_reconciler():
    for path in SOURCES:
        if name_of(path).startswith("receiver"):
            assert not {name for name in ours(path) if name.startswith("reconcile")}, path


def test_each_word_in_italics_is_in_the_glossary():
    text, glossary = DESIGN.split("## Glossary")
    words = set(re.findall(r"^\| ([^|(]+?) [|(]", glossary, re.MULTILINE))
    used = {word.lower() for word in re.findall(r"(?<![*\w])\*([\w -]+)\*(?!\*)", text)} - {"italics"}
    assert {
        word for word in used if not {word, word.removesuffix("s"), word.removesuffix("es")} & words
    } == set()


def test_each_rule_of_the_design_is_linked_from_a_module():
    parts = set(re.findall(r"^## (.+)$", DESIGN, re.MULTILINE))
    links = {
        (name_of(path), part)
        for path in SOURCES
        for part in re.findall(r'See\s+"([^"]+)"\s+in\s+docs/design\.md', path.read_text())
    }
    assert {link for link in links if link[1] not in parts} == set()
    assert parts - {part for _, part in links} == {"Rooms and arrows", "Glossary"}
