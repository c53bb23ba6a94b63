import pytest

from receiver.upstream.services import next_service


@pytest.mark.parametrize(
    ("name", "in_use", "following"),
    [
        ("midjourney", {"veo", "suno", "midjourney"}, "suno"),
        ("suno", {"veo", "suno"}, "veo"),
        ("veo", {"veo", "suno"}, None),
        ("midjourney", set(), None),
        ("veo", {"suno"}, None),  # no longer in use: the search begins anew
        ("midjourney", {"kickart", "of-a-newer-version"}, None),  # nobody can be asked about them
    ],
)
def test_those_in_use_follow_each_other(name, in_use, following):
    assert next_service(name, in_use) == following
