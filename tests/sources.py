"""The product's modules, and what each of them imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [path for folder in ("receiver", "reconcile") for path in (ROOT / folder).rglob("*.py")]


def name_of(path: Path) -> str:
    """Return a module's dotted name, a package's own for its `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Return the dotted names of the modules that a module imports, wherever in it."""
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {_module(node.module or "", alias.name) for alias in node.names}
    return names


def _module(package: str, name: str) -> str:
    module = f"{package}.{name}"
    return module if (ROOT / module.replace(".", "/")).with_suffix(".py").exists() else package
