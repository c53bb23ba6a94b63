"""How counts of refused requests add up, without a database."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.refusals import NO_ROUTE, WRONG_TOKEN, Refused, total

NOW = datetime(2026, 1, 31, 12)

counted = st.builds(
    lambda kind, requests, first, lasted: Refused(
        kind,
        requests,
        NOW + timedelta(minutes=first),
        NOW + timedelta(minutes=first + lasted),
        reason=f"{first + lasted}",
    ),
    st.sampled_from((NO_ROUTE, WRONG_TOKEN)),
    st.integers(1, 9),
    st.integers(0, 60),
    st.integers(0, 60),
)


@given(st.lists(counted))
def test_each_kind_has_the_sum_the_whole_time_and_what_came_last(some):
    sums = total(some)
    assert sums.keys() == {one.kind for one in some}
    for kind, added in sums.items():
        ours = [one for one in some if one.kind == kind]
        assert added.requests == sum(one.requests for one in ours)
        assert added.first_at == min(one.first_at for one in ours)
        assert added.last_at == max(one.last_at for one in ours)
        assert added.reason == max(ours, key=lambda one: one.last_at).reason


def test_nothing_adds_up_to_nothing():
    assert total([]) == {}
