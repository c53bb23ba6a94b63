from reconcile.splits import Splits

ROOT, A, B = "abcdefgh", "abcd", "efgh"
A1, A2, B1, B2 = "ab", "cd", "ef", "gh"


def refused(splits: Splits, *batches: str) -> list[bool]:
    """Refuse batches in this order, each halved afterwards as the run does it."""
    told = []
    for batch in batches:
        told.append(splits.refuse(batch))
        middle = len(batch) // 2
        splits.halve(batch, (batch[:middle], batch[middle:]))
    return told


def test_both_halves_at_two_levels_are_no_bad_id():
    assert refused(Splits(), ROOT, A, B, A1, A2) == [False] * 4 + [True]
    assert refused(Splits(), ROOT, A, A1, A2, B) == [False] * 4 + [True]
    assert refused(Splits(), ROOT, B, A, B2, B1) == [False] * 4 + [True]


def test_one_bad_id_is_one():
    assert refused(Splits(), ROOT, A, A1, "a") == [False] * 4


def test_a_bad_id_in_each_half_are_two():
    assert not any(refused(Splits(), ROOT, A, B, A1, B2, "a", "h"))


def test_two_in_the_same_quarter_are_two():
    assert not any(refused(Splits(), ROOT, A, A1, "a", "b"))


def test_the_same_ids_refused_twice_count_once():
    assert not any(refused(Splits(), ROOT, A, B, A1, A1))
