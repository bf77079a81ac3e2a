"""The worker's reports about itself: lines in a log, numbers for Prometheus, incidents for Sentry.

events          the closed list of log events      incidents   one event per incident, with its impact
logs            lines, all through one chain       event_throttle   limits events, keeps counts
redaction       removes secrets and content        reports     an incident as a Sentry event
metrics         numbers                            sentry      the client and its options
tracing         one request as spans               rules       alert rules for Prometheus
runbook         the entry of each alert and failure class
"""

from worker.telemetry.context import speaking
from worker.telemetry.events import EVENTS, Event, Level
from worker.telemetry.logs import configure, log, log_exception, loop_exception

__all__ = ["EVENTS", "Event", "Level", "configure", "log", "log_exception", "loop_exception", "speaking"]
