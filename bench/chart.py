"""Draws the chart: requests a second of each contender, on this disk and on a slower one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contender import CONTENDERS, Contender
from bench.ratios import median, pick
from bench.targets import REQUESTS

_CONNECTIONS = (16, 64)
_OURS = ("#9db8d9", "#2f5d8c")
_OTHERS = ("#cfcfcf", "#8a8a8a")
_BAR = 0.38
_TITLES = {"hot-path": "this disk", "slow-fsync": "each fsync takes {added_ms:g} ms longer"}


def draw(parts: Mapping[str, Any], path: Path) -> None:
    """Write the chart of those of the two parts that were measured; none if neither was."""
    drawn = {name: parts[name] for name in _TITLES if "rounds" in parts.get(name, {})}
    if not drawn:
        return
    mpl.rcParams["svg.hashsalt"] = "backstop"  # the same figures give the same file
    groups = {name: _measured(part) for name, part in drawn.items()}
    heights = [len(group) for group in groups.values()]
    figure = Figure(figsize=(9, 1.2 + 0.62 * sum(heights)), layout="constrained")
    figure.suptitle(
        "Callbacks of 1.2 KB acknowledged a second, at 16 (light) and 64 connections (dark)", fontsize=12
    )
    axes = figure.subplots(len(groups), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    for axis, (name, group) in zip(axes, groups.items(), strict=True):
        _draw_group(axis, drawn[name]["rounds"], group)
        axis.set_title(_TITLES[name].format(**drawn[name]), fontsize=10, loc="left")
    figure.savefig(path, metadata={"Date": None})


def _measured(part: Mapping[str, Any]) -> list[Contender]:
    return [one for one in CONTENDERS if pick(part["rounds"], contender=one.name)]


def _draw_group(axis: Axes, rows: Sequence[Mapping[str, Any]], group: Sequence[Contender]) -> None:
    for shade, connections in enumerate(_CONNECTIONS):
        some = pick(rows, connections=connections)
        values = [median(pick(some, contender=one.name), REQUESTS) for one in group]
        bars = axis.barh(
            [place + _BAR * (shade - 0.5) for place in range(len(group))],
            values,
            height=_BAR,
            color=[(_OURS if one.name.startswith("backstop") else _OTHERS)[shade] for one in group],
        )
        axis.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axis.set_yticks(range(len(group)), [one.title for one in group], fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.xaxis.set_visible(False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.tick_params(left=False)
