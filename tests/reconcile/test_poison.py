"""Whether an error that met a single id is an answer about that id."""

import pytest

from receiver.upstream.errors import ErrorScope, UpstreamError
from reconcile.poison import Suspicion


def error(scope: ErrorScope, *, permanent: bool = True, is_known: bool = True) -> UpstreamError:
    return UpstreamError("no", permanent=permanent, scope=scope, is_known=is_known)


@pytest.mark.parametrize(
    ("scope", "permanent", "is_about_id"),
    [
        (ErrorScope.ID, True, True),
        (ErrorScope.SIZE, True, True),
        (ErrorScope.SIZE, False, False),  # it took too long to read, which may pass
        (ErrorScope.CALL, True, False),
        (ErrorScope.ACCOUNT, True, False),
    ],
)
def test_what_concerns_an_id_and_cannot_pass_is_an_answer_about_it(scope, permanent, is_about_id):
    assert Suspicion().is_about_id(error(scope, permanent=permanent)) == is_about_id


def test_a_code_that_nobody_knows_is_one_once_upstream_has_answered_other_calls():
    suspicion, unknown = Suspicion(), error(ErrorScope.ID, is_known=False)
    assert not suspicion.is_about_id(unknown)
    suspicion.note_answer()
    assert suspicion.is_about_id(unknown)
