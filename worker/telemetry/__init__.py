"""The reports of a worker about itself: lines to a log, numbers to Prometheus, incidents and traces to Sentry.

observer          hears every event of the process; request_observer and process_observer are its two halves
event_fields      one execution as fields        logs        lines, all through one chain
events            the closed vocabulary          redaction   data that never leaves
metrics           numbers                        tracing     one request as spans
incidents         one event per incident         reports     an incident as a Sentry event
event_throttle    few events, with counts        sentry      the client, and its set-up
runbook           the remedy for each            rules       which conditions wake somebody
"""

from worker.telemetry.context import speaking
from worker.telemetry.events import EVENTS, Event, Level
from worker.telemetry.logs import configure, log, log_exception, loop_exception

__all__ = ["EVENTS", "Event", "Level", "configure", "log", "log_exception", "loop_exception", "speaking"]
