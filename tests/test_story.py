"""A task's whole story in the logs of the real processes, by its id."""

import json
import secrets
from base64 import b64encode

import urllib3

from tests.customer import Customer
from tests.processes import API_KEY, Backstop, wait_until
from tests.upstream import Options, StandIn


def test_grep_for_an_id_tells_a_tasks_story_in_json(tmp_path):
    secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    options = Options(latency=0, work=(0.5, 0.5))
    with StandIn(options) as upstream, Customer(secret) as customer:
        settings = {"FORWARD_URL": customer.url, "FORWARD_SECRET": secret, "LOG_FORMAT": "json"}
        with Backstop(tmp_path, upstream.url, **settings) as backstop:
            backstop.migrate()
            backstop.start_web("--access-logfile", "-")
            backstop.start_reconciler()
            request = {"prompt": "p", "callback_url": backstop.callback_url}
            task_id = upstream.submit("imagine", request)
            headers = {"Authorization": f"Bearer {API_KEY}", "X-Request-Id": "registering-1"}
            answer = urllib3.request(
                "POST", f"{backstop.url}/api/tasks", json={"id": task_id}, headers=headers
            )
            assert answer.status == 201, answer.data
            urllib3.request("GET", f"{backstop.url}/healthz")

            def story():
                logs = (backstop.log("web") + "\n" + backstop.log("reconcile")).splitlines()
                lines = [json.loads(line) for line in logs if task_id in line]
                return [line for line in lines if line.get("task") == task_id]

            wait_until(lambda: any("event" in line for line in story()) and customer.events, seconds=60)
            wait_until(lambda: any("forward" in line for line in story()))
            lines = story()
            texts = [line["message"].partition(": ")[2] for line in lines]
            for step in (
                "registered.",
                "a callback came",
                "upstream says succeeded",
                "succeeded, by callback",
                "told",
            ):
                assert any(text.startswith(step) for text in texts), (step, texts)
            assert (
                next(line for line in lines if line["message"].endswith("registered."))["request"]
                == "registering-1"
            )
            came = next(line for line in lines if "a callback came" in line["message"])
            assert came["request"], came
            assert any("run" in line for line in lines)
            assert len(lines) < 12
            web = backstop.log("web")
    assert all(json.loads(line) for line in web.splitlines() if line.startswith("{"))
    assert "/api/tasks" in web
    assert "/healthz" not in web
    assert backstop.environ["CALLBACK_TOKEN"] not in web
