"""Lines for the terminal."""

import pytest

from receiver.commands.shared import fit


@pytest.mark.parametrize(
    ("text", "columns", "told"),
    [
        ("", 5, ""),
        ("hello", 5, "hello"),
        ("hello!", 5, "hell…"),
        ("任务", 4, "任务"),
        ("任务一", 5, "任务…"),
        ("任务一", 4, "任…"),
        ("🎬🎬", 3, "🎬…"),
        ("e\u0301e\u0301e", 3, "e\u0301e\u0301e"),
    ],
)
def test_wide_signs_count_twice_and_accents_not_at_all(text, columns, told):
    assert fit(text, columns) == told
