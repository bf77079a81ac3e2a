"""Pages for operators: settings, metrics, alerts, Redis users, and the simulated gateway's markers."""

from docgen.markdown import fenced, page, settings_table, table, toml_table
from docgen.sentry_rules import SENTRY_RULES
from worker.config.config_file import AccountTable, Limits, PriceTable, RouteTable
from worker.config.otel_settings import OtelSettings
from worker.config.sentry_settings import SentrySettings
from worker.config.settings import Settings
from worker.devtools.simulator import fault_table
from worker.failures.classes import FAILURES
from worker.operations.acl import ROLES
from worker.telemetry.metrics import METRICS
from worker.telemetry.rules import RULES


def settings_page() -> str:
    return page(
        "Settings",
        "Settings are environment variables. Durations look like `30s`, `10m`, `1h` or `7d`. A wrong setting stops the "
        "start with one line per mistake. Secrets are never logged.",
        "## Worker",
        settings_table(Settings),
        "## Sentry and the runbook",
        settings_table(SentrySettings),
        "## OpenTelemetry",
        "With the extra `responses-worker[otel]`. The SDK reads its other variables itself, such as "
        "`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.",
        settings_table(OtelSettings),
    )


def config_file_page() -> str:
    return page(
        "The configuration file",
        "`WORKER_CONFIG_FILE` names a TOML file. It is read at start. Every mistake in it is one line, with its place. "
        "[Several keys and gateways](../operate/routes.md) shows how to use it.",
        "## `[accounts.NAME]`",
        toml_table(AccountTable),
        '## `[accounts.NAME.models."MODEL"]`',
        toml_table(Limits),
        "## `[routes.NAME]`",
        toml_table(RouteTable),
        '## `[models."MODEL"]`',
        "Prices in USD per million tokens. Results and usage then tell the cost.",
        toml_table(PriceTable),
    )


def metrics_page() -> str:
    rows = [
        (f"`{spec.name}`", spec.kind, ", ".join(f"`{label}`" for label in spec.labels), spec.help) for spec in METRICS
    ]
    return page(
        "Metrics",
        "A worker serves these at `/metrics` on `WORKER_HTTP_PORT`. No label holds a tenant or a request id, so that "
        "the number of series stays bounded.",
        table(("metric", "kind", "labels", "meaning"), rows),
    )


def alerts_page() -> str:
    return page(
        "Alerts",
        "## Classes and states that Sentry is told",
        "Sentry gets one issue per class and upstream, whatever the texts, statuses and tenants are.",
        _told(),
        "## Prometheus rules",
        "`responses-worker runbook --rules` prints these rules. The Helm chart installs them.",
        table(
            ("alert", "severity", "for", "runbook"),
            [(f"`{rule.alert}`", rule.severity, rule.for_, ", ".join(map(_entry, rule.entries))) for rule in RULES],
        ),
        "## Sentry alert rules",
        "Make these rules in the Sentry project.",
        table(
            ("rule", "when", "if", "then", "at most once in"),
            [(rule.name, rule.when, rule.matching, rule.then, rule.at_most) for rule in SENTRY_RULES],
        ),
    )


def acl_page() -> str:
    users = [(f"`{role.name}`", role.who, "; ".join(grant.purpose for grant in role.grants)) for role in ROLES]
    return page(
        "Redis users",
        "Each role gets the least that it needs. Replace `PASSWORD` before you run the commands. "
        "[Trust](../explanation/trust.md) says why.",
        table(("user", "is", "may"), users),
        *(f"## `{role.name}`\n\n{fenced(chr(10).join(role.setuser('PASSWORD')))}" for role in ROLES),
    )


def simulator_page() -> str:
    return page(
        "The simulated gateway",
        "`responses-worker simulator` answers `POST /v1/responses` with exact budgets and with every failure that the "
        "worker must survive. A marker in the prompt decides the fate of its call. `[[sim:500*2]]` fails twice and is "
        "then answered. The image does not contain the simulator.",
        fault_table(),
    )


def _told() -> str:
    """One row for each class that Sentry is told; one row for all that only callers can mend."""
    told = [
        (_entry(name), failure.level, "yes" if failure.pages else "", failure.fault, failure.customer_sees)
        for name, failure in FAILURES.items()
        if failure.level
    ]
    silent = ", ".join(_entry(name) for name, failure in FAILURES.items() if not failure.level)
    head = ("class or state", "level", "pages", "at fault", "meanwhile the customer sees")
    return table(head, [*told, (silent, "none", "", "", "")])


def _entry(name: str) -> str:
    return f"[`{name}`](../runbook/{name}.md)"
