"""The table of services, compared with upstream's facts in tests/samples/services.json."""

from typing import Any

import pytest

from receiver.upstream.services import SERVICES, Lookups, service_of, takes_callback
from tests.factories import sample

FACTS: dict[str, dict[str, Any]] = sample("services.json")
BILLED = "captcha"  # upstream charges when its results are read


def test_every_service_has_a_row_except_the_one_whose_results_are_billed_when_they_are_read():
    assert set(SERVICES) == set(FACTS) - {BILLED}
    assert all(SERVICES[name].name == name for name in SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_row_says_what_upstream_says(name: str):
    service, facts = SERVICES[name], FACTS[name]
    assert service.callback_paths == set(facts["callback_paths"])
    assert service.streaming_paths == set(facts["streaming_paths"])
    assert service.lookups == Lookups(facts["lookups"] or "none")
    assert service.lookups is Lookups.NONE or service.tasks_path == facts["tasks_path"]


def test_one_service_is_never_asked_about():
    assert [name for name in SERVICES if SERVICES[name].lookups is Lookups.NONE] == ["kickart"]


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_callback_urls_are_understood_where_upstream_says_so(facts: dict[str, Any]):
    assert all(takes_callback(path) for path in facts["callback_paths"])
    assert facts["tasks_path"] is None or not takes_callback(facts["tasks_path"])


@pytest.mark.parametrize(
    "path",
    [
        "/midjourney/describe",
        "/midjourney/seed",
        "/suno/lyrics",
        "/captcha/token/turnstile",
        "/face/swap",
        "/",
    ],
)
def test_no_callback_url_is_understood_elsewhere(path: str):
    assert not takes_callback(path)


def test_a_path_belongs_to_the_service_that_it_begins_with():
    assert service_of("/suno/audios/more") is SERVICES["suno"]
    assert service_of("suno") is SERVICES["suno"]
    assert service_of("/captcha/tasks") is None
    assert service_of("/") is None
