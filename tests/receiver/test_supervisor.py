import pytest

from receiver.supervisor import restart_wait


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (8, 30), (10_000, 30)]
)
def test_a_program_that_fails_again_and_again_waits_longer_each_time(failures, seconds):
    assert restart_wait(failures) == seconds
