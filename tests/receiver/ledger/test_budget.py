from receiver.ledger.budget import Budget


def test_it_allows_so_much_at_once_and_fills_up_with_time_to_no_more_than_that():
    now = [100.0]
    budget = Budget(most=600, within=60, monotonic=lambda: now[0])
    assert [budget.take(400), budget.take(201), budget.take(200), budget.take(1)] == [
        True,
        False,
        True,
        False,
    ]
    now[0] += 30
    assert [budget.take(301), budget.take(300), budget.take(1)] == [False, True, False]
    now[0] += 6000
    assert [budget.take(601), budget.take(600), budget.take(1)] == [False, True, False]


def test_what_is_given_back_can_be_taken_again():
    budget = Budget(most=600, within=60, monotonic=lambda: 0.0)
    assert budget.take(600)
    budget.release(400)
    assert [budget.take(401), budget.take(400)] == [False, True]
    budget.release(10_000)
    assert [budget.take(601), budget.take(600)] == [False, True]
