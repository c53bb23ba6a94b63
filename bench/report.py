"""Keeps what was measured and on which machine, and writes the report: the targets, then each part."""

import json
import os
import platform
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench import cost, forwarding, gateway, hot_path, pruning, reconciling, scale, stalls, verify
from bench.figures import median_ms, table
from bench.ledgers import postgresql_version
from bench.targets import TARGETS
from bench.workbench import Plan, Workbench

Results = Mapping[str, Any]


class Part(NamedTuple):
    """A part of the benchmark: its title in the report, how it measures and how it tells its results."""

    title: str
    run: Callable[[Workbench], dict[str, Any]]
    tell: Callable[[Results], str]


PARTS = {
    "hot-path": Part("Callbacks", hot_path.run, hot_path.tell),
    "slow-fsync": Part("Callbacks on a slower disk", hot_path.run_slow, hot_path.tell_slow),
    "verify": Part("What was acknowledged is kept", verify.run, verify.tell),
    "stalls": Part("Clients that stall", stalls.run, stalls.tell),
    "reconcile": Part("Reconciling", reconciling.run, reconciling.tell),
    "forward": Part("Telling the app", forwarding.run, forwarding.tell),
    "gateway": Part("The gateway", gateway.run, gateway.tell),
    "pruning": Part("Callbacks while old rows are deleted", pruning.run, pruning.tell),
    "scale": Part("Many tasks", scale.run, scale.tell),
    "cost": Part("What it costs to run", cost.run, cost.tell),
}
_PACKAGES = ("gunicorn", "flask", "peewee", "psycopg", "flask-sqlalchemy", "sqlalchemy")
_FSYNCS = 200
_BLOCK = bytes(4096)


def keep(directory: Path, name: str, measured: Results, plan: Plan, machine: Results) -> None:
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


def write(parts: Results) -> str:
    """Return the report on the parts that were measured."""
    newest = max(parts.values(), key=lambda one: one["measured_at"])
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
    for name, part in PARTS.items():
        if name in parts:
            lines += ["", f"## {part.title}", "", _measured(parts[name], newest), "", part.tell(parts[name])]
    return "\n".join(lines) + "\n"


def _judged(parts: Results) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for target in TARGETS:
        reached, met = "", "not measured"
        if target.part in parts:
            reached, is_met = target.judge(parts[target.part])
            met = "yes" if is_met else "**no**"
        rows.append((str(target.number), target.text, reached, met))
    return rows


def _machine(machine: Results) -> str:
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "sqlite", "postgresql", *_PACKAGES))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, an fsync takes"
        f" {machine['fsync_ms']} ms; {versions}."
    )


def _measured(part: Results, newest: Results) -> str:
    plan = part["plan"]
    words = (
        f"{part['measured_at'][:16].replace('T', ' ')} UTC, {plan['rounds']} rounds of {plan['seconds']} s."
    )
    return words if part["machine"] == newest["machine"] else f"{words} {_machine(part['machine'])}"
