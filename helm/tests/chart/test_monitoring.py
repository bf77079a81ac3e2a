"""Rules and dashboard ask for what workers show, parse, and fire when they should."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from charts import CHART, MATRIX, RefusedError, Rendered, render
from toolbox import promtool

from worker.telemetry.metrics import METRICS
from worker.telemetry.rules import RULES, prometheus_groups
from worker.telemetry.runbook_links import link

OURS: Final = re.compile(r"(responses_worker[a-z_:]+)(?:\{([^}]*)\})?")
LABEL: Final = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
OF_THE_TARGET: Final = {"namespace", "job", "worker_group"}
"""Labels that the PodMonitor gives, not the worker."""
SUFFIXES: Final = ("_bucket", "_sum", "_count")

EVERYTHING: Final = CHART / "ci" / "everything-values.yaml"
needs_promtool = pytest.mark.skipif(not promtool(), reason="promtool could not be had (Debian's package prometheus)")


def dashboard() -> dict[str, Any]:
    return json.loads(render(EVERYTHING).one("ConfigMap", "-dashboard")["data"]["responses-worker.json"])


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rule_groups(rendered: Rendered) -> list[dict[str, Any]]:
    return rendered.one("PrometheusRule")["spec"]["groups"]


def rules(rendered: Rendered) -> list[dict[str, Any]]:
    return [rule for group in rule_groups(rendered) for rule in group["rules"]]


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": rule_groups(render(EVERYTHING, release="answers"))}), encoding="utf-8")
    return file


def run_promtool(*arguments: str) -> None:
    done = subprocess.run([str(promtool()), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_the_workers_own() -> None:
    """`python -m worker.telemetry.rules > helm/files/rules.json` brings them up to date."""
    assert json.loads((CHART / "files" / "rules.json").read_text(encoding="utf-8")) == prometheus_groups()


def test_alerts_lead_to_published_pages() -> None:
    """With the address of the runbook, with or without its last slash."""
    for address in ("https://runbooks.example.com/", "https://runbooks.example.com"):
        rendered = render(values={"prometheusRule": {"enabled": True}, "runbookUrl": address})
        links = {rule["annotations"]["runbook_url"] for rule in rules(rendered) if "alert" in rule}
        assert links == {link(rule.entry, address) for rule in RULES}


def test_everything_asked_for_exists() -> None:
    """Every metric is in the worker's registry with every label that is asked of it, or recorded by a rule."""
    expressions = panel_queries() + [rule["expr"] for values in MONITORED for rule in rules(render(values))]
    recorded = {rule["record"] for values in MONITORED for rule in rules(render(values)) if "record" in rule}
    known = {spec.name: {*spec.labels, *OF_THE_TARGET} for spec in METRICS}
    known |= {f"{spec.name}{suffix}": {*spec.labels, *OF_THE_TARGET, "le"} for spec in METRICS for suffix in SUFFIXES}
    known |= dict.fromkeys(recorded, OF_THE_TARGET)
    asked = [(name, set(LABEL.findall(selector))) for text in expressions for name, selector in OURS.findall(text)]
    assert len(asked) > 50
    assert {name for name, _ in asked} <= known.keys()
    assert not [(name, labels) for name, labels in asked if not labels <= known[name]]


def test_hpa_scales_on_what_is_recorded() -> None:
    rendered = render(CHART / "ci" / "hpa-values.yaml")
    recorded = {
        (rule["record"], rule["labels"]["worker_group"])
        for rule in rules(rendered)
        if "worker_group" in rule.get("labels", {})
    }
    for scaler in rendered.all("HorizontalPodAutoscaler"):
        metric = scaler["spec"]["metrics"][0]["external"]["metric"]
        assert (metric["name"], metric["selector"]["matchLabels"]["worker_group"]) in recorded


def test_every_metric_is_narrowed_to_the_release() -> None:
    """Two releases in one cluster do not wake each other's people."""
    for rule in rules(render(EVERYTHING, release="answers")):
        for _, selector in OURS.findall(rule["expr"]):
            assert selector.startswith('namespace="default",job="answers"')


def test_silence_is_no_alarm_where_no_pod_is_a_state() -> None:
    """A fleet that may scale to nothing shows no metrics at night."""

    def alerts(least: int) -> set[str]:
        scaling = {"autoscaling": {"minReplicas": least}}
        values = {"prometheusRule": {"enabled": True}, "workers": {"interactive": scaling, "batch": scaling}}
        return {rule["alert"] for rule in rules(render(values=values)) if "alert" in rule}

    assert alerts(1) - alerts(0) == {"ResponsesWorkerSilent"}


def test_thresholds_are_values() -> None:
    """One alert's own number, duration and severity; one that is off; and an objective that burn rates follow."""
    values = {
        "prometheusRule": {
            "enabled": True,
            "objective": 0.999,
            "alerts": {
                "ResponsesWorkerResultsUnread": {"threshold": 250, "for": "1h", "severity": "page"},
                "ResponsesWorkerDeadLetters": {"enabled": False},
            },
        }
    }
    found = {rule["alert"]: rule for rule in rules(render(values=values)) if "alert" in rule}

    unread, burns = found["ResponsesWorkerResultsUnread"], found["ResponsesWorkerErrorBudgetBurnsFast"]
    assert (unread["expr"][-5:], unread["for"], unread["labels"]["severity"]) == ("> 250", "1h", "page")
    assert (burns["expr"].count("14.4 * 0.001"), burns["expr"].count("* 0.01")) == (2, 0)
    assert "ResponsesWorkerDeadLetters" not in found
    assert found["ResponsesWorkerCallsLost"]["expr"].endswith("> 5")


def test_a_service_monitor_reads_what_a_pod_monitor_does() -> None:
    """Through a headless Service; both at once would scrape every worker twice."""
    rendered = render(values={"serviceMonitor": {"enabled": True, "labels": {"team": "a"}}})
    monitor, service = rendered.one("ServiceMonitor"), rendered.one("Service", "-metrics")
    pods = render(values={"podMonitor": {"enabled": True}}).one("PodMonitor")

    assert monitor["spec"]["jobLabel"] == pods["spec"]["jobLabel"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"] == pods["spec"]["selector"]["matchLabels"]
    assert (service["spec"]["clusterIP"], monitor["metadata"]["labels"]["team"]) == ("None", "a")
    with pytest.raises(RefusedError, match="enable one of them"):
        render(values={"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}})


@needs_promtool
def test_rules_parse_and_are_free_of_lint(rule_file: Path) -> None:
    run_promtool("check", "rules", "--lint=all", "--lint-fatal", str(rule_file))


@needs_promtool
def test_rules_fire_when_they_should(rule_file: Path) -> None:
    """And not when they should not: the cases are in rules_test.yaml. Wording is no part of them."""
    groups = yaml.safe_load(rule_file.read_text(encoding="utf-8"))["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule.pop("annotations", None)
    rule_file.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    cases = rule_file.with_name("rules_test.yaml")
    cases.write_text((Path(__file__).parent / "rules_test.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    run_promtool("test", "rules", str(cases))


@needs_promtool
def test_dashboard_queries_parse(tmp_path: Path) -> None:
    """As recording rules, with Grafana's own variables filled in."""
    queries = [query.replace("$__rate_interval", "5m") for query in panel_queries()]
    group = {"name": "panels", "rules": [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries)]}
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    run_promtool("check", "rules", "--lint=none", str(file))


def test_dashboard_is_whole() -> None:
    """Unique ids, no panel over another, all of them explained and fed by the chosen data source."""
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = [cell for panel in everything for cell in _cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken)
    variables = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert variables == {"datasource", "namespace", "job"}
    for panel in panels():
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all('namespace="$namespace",job="$job"' in target["expr"] for target in panel["targets"])


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    return [(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])]


MONITORED: Final = [values for values in MATRIX if render(values).all("PrometheusRule")]
