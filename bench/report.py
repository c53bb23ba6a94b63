"""Keeps what was measured and on which machine, and writes the report: the targets, then each part."""

import json
import os
import platform
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import cost, hot_path, reconciling, scale, stalls, verify
from bench.figures import median_ms, table
from bench.ledgers import postgresql_version
from bench.targets import TARGETS
from bench.workbench import Plan

Parts = Mapping[str, Any]

_SECTIONS = {
    "hot-path": ("Callbacks", hot_path.tell),
    "slow-fsync": ("Callbacks on a slower disk", hot_path.tell_slow),
    "verify": ("What was acknowledged is kept", verify.tell),
    "stalls": ("Clients that stall", stalls.tell),
    "reconcile": ("Reconciling", reconciling.tell),
    "scale": ("Many tasks", scale.tell),
    "cost": ("What it costs to run", cost.tell),
}
_PACKAGES = ("gunicorn", "flask", "peewee", "psycopg", "flask-sqlalchemy", "sqlalchemy")
_FSYNCS = 200
_BLOCK = bytes(4096)


def keep(directory: Path, name: str, measured: Parts, plan: Plan, machine: Parts) -> None:
    """Put what a part has measured in the place of its earlier results, and write the report anew."""
    raw = directory / "results.json"
    parts = json.loads(raw.read_text()) if raw.exists() else {}
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    parts[name] = {"measured_at": measured_at, "plan": asdict(plan), "machine": machine, **measured}
    raw.write_text(json.dumps(parts, indent=1) + "\n")
    (directory / "results.md").write_text(write(parts))


def describe_machine(directory: Path) -> dict[str, Any]:
    """Return what the benchmark runs on; `directory` is on the disk that everything is measured on."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "fsync_ms": round(_fsync_ms(directory / "fsync"), 3),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": postgresql_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _fsync_ms(path: Path) -> float:
    """Return the median time to append a block and to sync it."""
    with open(path, "wb", buffering=0) as file:

        def append() -> None:
            file.write(_BLOCK)
            os.fdatasync(file.fileno())

        return median_ms(append, _FSYNCS)


def write(parts: Parts) -> str:
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
        table(("", "target", "reached", "met"), _judged(parts), texts=4),
    ]
    for name, (title, tell) in _SECTIONS.items():
        if name in parts:
            lines += ["", f"## {title}", "", _measured(parts[name], newest), "", tell(parts[name])]
    return "\n".join(lines) + "\n"


def _judged(parts: Parts) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for target in TARGETS:
        reached, met = "", "not measured"
        if target.part in parts:
            reached, is_met = target.judge(parts[target.part])
            met = "yes" if is_met else "**no**"
        rows.append((str(target.number), target.text, reached, met))
    return rows


def _machine(machine: Parts) -> str:
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "sqlite", "postgresql", *_PACKAGES))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, an fsync takes"
        f" {machine['fsync_ms']} ms; {versions}."
    )


def _measured(part: Parts, newest: Parts) -> str:
    plan = part["plan"]
    words = (
        f"{part['measured_at'][:16].replace('T', ' ')} UTC, {plan['rounds']} rounds of {plan['seconds']} s."
    )
    return words if part["machine"] == newest["machine"] else f"{words} {_machine(part['machine'])}"
