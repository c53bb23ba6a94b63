import pytest

from receiver.api_keys import ApiKey, find_key, parse_api_keys

A, B = "a" * 16, "ro_" + "b" * 16


def test_one_key_needs_no_name():
    assert parse_api_keys(A, "") == (ApiKey("default", A),)


def test_several_have_names():
    web, board = parse_api_keys(f"web:{A}, board:{B},", "")
    assert (web, board) == (ApiKey("web", A), ApiKey("board", B))
    assert (web.may_write, board.may_write) == (True, False)


@pytest.mark.parametrize(("text", "name"), [(f"{A},{B}", "default"), (f"web:{A},web:{B}", "web")])
def test_keys_of_one_caller_have_one_name(text, name):
    keys = parse_api_keys(text, "")
    assert keys == (ApiKey(name, A), ApiKey(name, B))
    assert [find_key(keys, given) for given in (A, B)] == list(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "16 characters or more") for text in ("", ",", "short", "a b" * 9, f"we b:{A}", f":{A}")),
        *((text, "16 characters or more") for text in ("web:short", f"upstream-token:{A}")),
        (f"web:{A},batch:{A}", "each key once"),
    ],
)
def test_others_are_refused_without_a_secret_in_the_message(text, said):
    with pytest.raises(ValueError, match=said) as refused:
        parse_api_keys(text, "openssl")
    assert A not in str(refused.value)


def test_a_key_is_found_by_all_of_it():
    keys = parse_api_keys(f"web:{A},board:{B}", "")
    assert find_key(keys, B) == keys[1]
    assert find_key(keys, A[:-1]) is None
    assert find_key(keys, "") is None


def test_it_is_shown_without_its_secret():
    assert A not in repr(ApiKey("web", A))
