"""What docs/security.md claims, at a real web process: strangers who guess lock nobody out."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import urllib3

from receiver.web.guesses import FROM_AN_ADDRESS
from tests.factories import body
from tests.processes import Backstop

GUESSES = 300


def test_while_somebody_guesses_keys_and_tokens_everybody_else_is_served(tmp_path):
    with Backstop(tmp_path, "http://127.0.0.1:9", WEB_CONCURRENCY=1) as backstop:
        backstop.migrate()
        backstop.start_web()
        http = urllib3.PoolManager(maxsize=8, retries=False, timeout=30)

        def guess(number: int) -> int:
            headers = {"Authorization": f"Bearer guess-{number}"}
            path, method = (("/api/tasks", "GET"), (f"/callbacks/guess-{number}", "POST"))[number % 2]
            return http.request(method, backstop.url + path, headers=headers).status

        with ThreadPoolExecutor(8) as guesser:
            guesses = [guesser.submit(guess, number) for number in range(GUESSES)]
            callbacks = [backstop.post_callback(body(f"t{n}")).status for n in range(20)]
            answers = [backstop.request("GET", "/api/tasks").status for _ in range(20)]
        assert (set(callbacks), set(answers)) == ({200}, {200})
        told = Counter(one.result() for one in guesses)
        taken = told[401] + told[404]
        assert FROM_AN_ADDRESS <= taken < GUESSES / 2  # the rest depends on how long that took
        assert told[429] == GUESSES - taken
        report = backstop.request("GET", "/readyz").json()
        counted = {kind: report["refused"][kind]["requests"] for kind in ("guessed", "wrong_token")}
        assert counted == {"guessed": GUESSES // 2 - told[401], "wrong_token": GUESSES // 2}
        assert "keys_guessed" in {one["code"] for one in report["troubles"]}
        assert backstop.log("web").count("came too fast") < 5  # at most once a minute
