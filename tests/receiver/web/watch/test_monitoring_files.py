"""The alerting rules and the dashboard of the documents: they load, and every metric that they name exists."""

import json
import re
import shutil
import subprocess

import pytest

from receiver.web.watch.troubles import KINDS
from tests.sources import ROOT

RULES = ROOT / "docs/prometheus-alerts.yml"
DASHBOARD = ROOT / "docs/grafana.json"
METRIC = re.compile(r"\bbackstop_[a-z_]+")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def expressions() -> dict[str, str]:
    """Return the expression of each rule."""
    found = re.findall(r"^ +- alert: (\w+)\n +expr: (.+)$", RULES.read_text(), re.MULTILINE)
    assert len(found) == RULES.read_text().count("alert: ")
    return dict(found)


def queries() -> list[str]:
    """Return the queries of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture
def scraped(client, auth) -> str:
    return client.get("/metrics", headers=auth).text


def exported(scraped: str) -> set[str]:
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", scraped, re.MULTILINE):
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        names |= {f"{name}{suffix}" for suffix in suffixes}
    return names


def test_every_metric_of_the_rules_and_of_the_dashboard_exists(scraped):
    known = exported(scraped)
    for query in (*expressions().values(), *queries()):
        named = set(METRIC.findall(query))
        assert named <= known, query
        assert named or "up{" in query, query


def test_the_dashboard_shows_every_metric(scraped):
    named = {name for query in queries() for name in METRIC.findall(query)}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in exported(scraped)}
    assert families == {re.sub("_(bucket|count|sum)$", "", name) for name in named}


def test_every_code_of_the_rules_exists():
    for expression in expressions().values():
        for codes in re.findall(r'code=~?"([^"]+)"', expression):
            assert set(codes.split("|")) <= set(KINDS)


def test_what_alert_url_is_told_has_a_rule():
    by_metrics_of_their_own = {
        *("callbacks_lost", "spool_waiting", "deliveries_set_aside", "upstream_refuses", "upstream_failing"),
        *("forwards_late", "forwards_given_up", "disputes"),
    }
    found = re.findall(r'code=~?"([^"]+)"', " ".join(expressions().values()))
    told = {kind.code for kind in KINDS.values() if kind.alert_after is not None}
    assert {code for codes in found for code in codes.split("|")} == told - by_metrics_of_their_own


@needs_promtool
def test_prometheus_loads_the_rules_and_the_metrics(scraped):
    checked = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    linted = subprocess.run([PROMTOOL, "check", "metrics"], input=scraped, capture_output=True, text=True)
    assert (linted.returncode, linted.stderr) == (0, "")


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series", "values"),
    [
        ("BackstopCallbacksLost", 'backstop_refused_requests_total{kind="not_kept"}', "0x5 3x30"),
        ("BackstopReconcilerSilent", 'backstop_trouble{code="reconciler_silent"}', "1x40"),
        ("BackstopNoGoodRun", "backstop_last_good_run_timestamp_seconds", "0x40"),
        ("BackstopUpstreamRefuses", 'backstop_upstream_paused{reason="account"}', "1x40"),
        ("BackstopBacklog", "backstop_tasks_due_oldest_seconds", "700x40"),
        ("BackstopSpoolNotEmpty", "backstop_spool_deliveries", "4x40"),
        ("BackstopDatabaseDown", 'backstop_trouble{code="database_down"}', "1x40"),
        ("BackstopDiskNearlyFull", 'backstop_trouble{code="disk_nearly_full"}', "1x40"),
        ("BackstopDiskFillsUp", 'backstop_disk_free_bytes{path="/data"}', "9000000000-9000000x90"),
        ("BackstopTrouble", 'backstop_trouble{code="clock_wrong"}', "1x40"),
        ("BackstopDeadLetters", 'backstop_forwards{status="failed"}', "1x40"),
    ],
)
def test_a_rule_fires_for_what_it_is_about_and_for_nothing_else(tmp_path, alert, series, values):
    def case(given: str, count: int) -> dict[str, object]:
        query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
        samples = [{"labels": "{}", "value": count}] if count else []
        test = {"expr": query, "eval_time": "85m" if "Fills" in alert else "30m", "exp_samples": samples}
        return {
            "interval": "1m",
            "input_series": [{"series": series, "values": given}],
            "promql_expr_test": [test],
        }

    fine = "0+60x40" if "timestamp" in series else "9000000000x90" if "free" in series else "0x40"
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [case(values, 1), case(fine, 0)],
    }
    if alert == "BackstopCallbacksLost":
        tests["tests"][0]["promql_expr_test"][0]["eval_time"] = "12m"
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps(tests))
    ran = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
