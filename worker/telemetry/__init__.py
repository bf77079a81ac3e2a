"""What the worker says about itself, and to whom: lines to a log, numbers to Prometheus, incidents to Sentry.

events      the closed vocabulary           incidents   one event per incident, with its impact
logs        lines, all through one chain    gate        how few events say how much happened
redaction   what never leaves               treatments  which failure is told to whom: a table
metrics     numbers                         reports     an incident as a Sentry event
tracing     one request as spans            sentry      the client, and how it is set up
runbook     what to do about it             rules       what should wake somebody
"""

from worker.telemetry.context import speaking
from worker.telemetry.events import EVENTS, Event, Level
from worker.telemetry.logs import configure, log, log_exception, loop_exception

__all__ = ["EVENTS", "Event", "Level", "configure", "log", "log_exception", "loop_exception", "speaking"]
