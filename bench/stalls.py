"""Do callbacks go on while a hundred clients stall in the middle of a body?"""

import time
from typing import Any

from bench.contender import SQLITE
from bench.load import Measured
from bench.stalling import StallingClients
from bench.workbench import Workbench

CLIENTS = 100
_CONNECTIONS = 16
_RECOVER_SECONDS = 1


def run(bench: Workbench) -> dict[str, Any]:
    """Put the same load on Backstop without and with clients that stall, in turn."""
    rows = []
    with bench.serve(SQLITE) as server:
        bench.warm_up(server)
        for number in range(bench.plan.rounds):
            alone = bench.load(server, _CONNECTIONS)
            rows.append({"round": number, "stalling": 0, **alone.as_row()})
            with StallingClients(server, CLIENTS) as clients:
                beside = bench.load(server, _CONNECTIONS, bench.plan.stalled)
            rows.append({"round": number, "stalling": CLIENTS, "dropped": clients.dropped, **beside.as_row()})
            _say(bench, alone, beside, clients.dropped)
            time.sleep(_RECOVER_SECONDS)
    return {"rounds": rows, "connections": _CONNECTIONS}


def _say(bench: Workbench, alone: Measured, beside: Measured, dropped: int) -> None:
    bench.say(
        f"{alone.requests_per_second:.0f} a second, p99 {alone.p99:.1f} ms; beside {CLIENTS} stalled clients"
        f" {beside.requests_per_second:.0f} a second, p99 {beside.p99:.1f} ms, {dropped} times dropped"
    )
