"""Writes the results as Markdown: the targets first, then what each part has measured."""

from collections.abc import Mapping
from typing import Any

from bench import ledger_sections, load_sections
from bench.tables import table
from bench.targets import judge_all

_SECTIONS = {
    "hot-path": ("Callbacks", load_sections.hot_path),
    "slow-fsync": ("Callbacks on a slower disk", load_sections.slow_fsync),
    "verify": ("What was acknowledged is kept", load_sections.verify),
    "stalls": ("Clients that stall", load_sections.stalls),
    "reconcile": ("Reconciling", ledger_sections.reconcile),
    "scale": ("Many tasks", ledger_sections.scale),
    "cost": ("What it costs to run", ledger_sections.cost),
}
_MET = {True: "yes", False: "**no**", None: "not measured"}


def write(parts: Mapping[str, Any]) -> str:
    """Return the report on the parts that were measured."""
    newest = max(parts.values(), key=lambda part: part["measured_at"])
    lines = [
        "# Results",
        "",
        f"Measured on {newest['measured_at'][:10]} by `make bench`. Absolute figures hold for this machine,"
        " on which wrk shares the cores with what it measures; ratios are medians of those in each round.",
        "",
        _machine(newest["machine"]),
        "",
        _targets(parts),
    ]
    for name, (title, section) in _SECTIONS.items():
        if name in parts:
            lines += ["", f"## {title}", "", _measured(parts[name], newest), "", section(parts[name])]
    return "\n".join(lines) + "\n"


def _targets(parts: Mapping[str, Any]) -> str:
    rows = [
        (str(target.number), target.text, target.reached or "", _MET[target.met])
        for target in judge_all(parts)
    ]
    return table(("", "target", "reached", "met"), rows, texts=4)


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ("python", "sqlite", "postgresql", "gunicorn", "flask", "peewee", "psycopg", "wrk")
    others = ("flask-sqlalchemy", "fastapi", "sqlalchemy", "uvicorn")
    named = ", ".join(f"{name} {machine[name]}" for name in (*versions, *others))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['kernel']},"
        f" {machine['filesystem']} where an fsync takes {machine['fsync_ms']} ms; {named}."
    )


def _measured(part: Mapping[str, Any], newest: Mapping[str, Any]) -> str:
    plan = part["plan"]
    words = (
        f"{part['measured_at'][:16].replace('T', ' ')} UTC, {plan['rounds']} rounds of {plan['seconds']} s."
    )
    return words if part["machine"] == newest["machine"] else f"{words} {_machine(part['machine'])}"
