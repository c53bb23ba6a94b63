"""Schemathesis asks a running service all that openapi.json describes, and much that it does not."""

import os
import shutil
import subprocess

import pytest

from tests.processes import API_KEY, CALLBACK_TOKEN, Backstop
from tests.upstream import Options, StandIn

SCHEMATHESIS = shutil.which("schemathesis")
MISSING = "The API was NOT asked by Schemathesis: it is not in the PATH"
# A wrong key gets 429 soon; some good requests are refused for what a schema cannot say; a task's id may be
# `acknowledge`, so other methods are allowed there.
NOT_CHECKED = "ignored_auth,positive_data_acceptance,allow_header_conformance"
# A callback is kept, whatever it is. What goes to upstream is upstream's to refuse.
CONFIGURATION = f"""
[parameters]
"query.wait" = 0
"path.token" = "{CALLBACK_TOKEN}"
"path.service" = "midjourney"
"path.operation" = "imagine"
[[operations]]
include-path-regex = '^/(callbacks/|\\{{service\\}})'
[operations.checks.negative_data_rejection]
enabled = false
"""


@pytest.mark.direct
@pytest.mark.skipif(SCHEMATHESIS is None and not os.environ.get("CI"), reason=MISSING)
def test_no_request_gets_an_error_of_ours_or_an_answer_that_is_not_described(ledger, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    forwarding = {"FORWARD_URL": "http://127.0.0.1:9/hook", "FORWARD_SECRET": "whsec_" + "c2VjcmV0" * 4}
    with (
        StandIn(Options(work=(0.01, 0.02))) as upstream,
        Backstop(tmp_path, upstream.url, DATABASE_URL=ledger, **forwarding) as backstop,
    ):
        backstop.start_web()
        asked = ["run", f"{backstop.url}/openapi.json", "--header", f"Authorization: Bearer {API_KEY}"]
        asked += ["--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--no-color"]
        asked += ["--exclude-checks", NOT_CHECKED]
        told = subprocess.run(
            [str(SCHEMATHESIS), *asked, "--request-timeout", "60"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert told.returncode == 0, told.stdout[-5000:] + told.stderr
        assert "Traceback" not in backstop.log("web")
