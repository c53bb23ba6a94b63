"""Draws how late lost results were: for each mix the share that was known after so many seconds. Pure."""

import math
from collections.abc import Iterator, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _LINE = 720, 300, 56, 16, 24, 22
_MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # seconds, on a scale on which each tenfold is as long
_SHARES = (0, 25, 50, 75, 90, 100)
_POINTS = 200
# Both themes show them.
_COLOURS = ("#2f7ed8", "#d9822b", "#2ea36b", "#a45bd1", "#c94f4f")
_GREY = "#8a8f98"


def draw(curves: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Return an SVG with one curve for each name and its seconds, which need no order."""
    height = _HEIGHT + _TOP + 2 * _LINE + _LINE * len(curves) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' font-family="sans-serif" font-size="13" fill="{_GREY}">',
        "<title>How late lost results are recovered</title>",
        *_axes(),
    ]
    for place, (name, seconds) in enumerate(curves):
        colour, at = _COLOURS[place % len(_COLOURS)], _TOP + _HEIGHT + _LINE * (place + 3)
        lines += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{_points(seconds)}"/>',
            f'<rect x="{_LEFT}" y="{at - 10}" width="18" height="4" fill="{colour}"/>',
            f'<text x="{_LEFT + 28}" y="{at - 3}">{escape(name)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _axes() -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _TOP + _HEIGHT
    for share in _SHARES:
        at = _y(share / 100)
        yield f'<path d="M{_LEFT} {at:.1f}H{right}" stroke="{_GREY}" stroke-opacity=".3"/>'
        yield f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{share} %</text>'
    for mark in _MARKS:
        yield f'<text x="{_x(mark):.1f}" y="{bottom + 18}" text-anchor="middle">{mark}</text>'
    yield f'<text x="{right}" y="{bottom + 36}" text-anchor="end">seconds after upstream had finished</text>'


def _points(seconds: Sequence[float]) -> str:
    known = sorted(seconds)
    shares = [step / _POINTS for step in range(_POINTS + 1)]
    values = [known[int(share * (len(known) - 1))] for share in shares]
    return " ".join(f"{_x(value):.1f},{_y(share):.1f}" for share, value in zip(shares, values, strict=True))


def _x(seconds: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _decades(seconds) / _decades(_MARKS[-1])


def _y(share: float) -> float:
    return _TOP + _HEIGHT * (1 - share)


def _decades(seconds: float) -> float:
    return math.log10(min(max(seconds, _MARKS[0]), _MARKS[-1]))
