"""Keeps what was measured: the raw rounds, the report on them and the chart, in one directory."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import chart, report
from bench.plan import Plan


class Results:
    """The results in a directory. A part that is measured again takes the place of what was there of it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._raw = directory / "results.json"

    def keep(self, name: str, part: Mapping[str, Any], plan: Plan, machine: Mapping[str, Any]) -> None:
        """Add what a part has measured, and write everything anew."""
        parts = json.loads(self._raw.read_text()) if self._raw.exists() else {}
        measured_at = datetime.now(UTC).isoformat(timespec="seconds")
        parts[name] = {"measured_at": measured_at, "plan": asdict(plan), "machine": machine, **part}
        self._raw.write_text(json.dumps(parts, indent=1) + "\n")
        (self._directory / "results.md").write_text(report.write(parts))
        chart.draw(parts, self._directory / "hot_path.svg")
