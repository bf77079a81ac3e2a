"""Follows one streamed call while its answer comes."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from api_contracts.queues import delta_stream
from worker.admission.grants import Reservation
from worker.request.execution import Execution
from worker.request.ports import AdmissionPort, DeltasPort, RelayPort
from worker.storage.scripts import ScriptError


@dataclass(slots=True)
class StreamWatch:
    """Passes each event on to the request's own stream.

    A probe's first output opens the gate: the whole answer may take minutes, and everybody else would wait for it.
    """

    deltas: DeltasPort
    admission: AdmissionPort
    reservation: Reservation
    _telling: "asyncio.Task[None] | None" = None

    @classmethod
    def of(cls, execution: Execution, reservation: Reservation, relay: RelayPort, admission: AdmissionPort) -> Self:
        """A watch on the attempt that just began; readers are told if it is not the first."""
        message, last = execution.request, execution.last_failure
        deltas = relay.open(delta_stream(message.tenant, message.request_id), execution.number)
        execution.flush = deltas.flushed
        if execution.number > 1:
            deltas.restarted(last.code if last else None)
        return cls(deltas, admission, reservation)

    def event(self, data: bytes) -> None:
        """Takes the data of one server-sent event, as the gateway wrote it."""
        if self.reservation.gate and self._telling is None and _is_output(data):
            self._telling = asyncio.create_task(self.admission.heard(self.reservation), name="first output")
        self.deltas.event(data)

    async def ended(self) -> None:
        """Returns once admission was told, if there was something to tell."""
        if self._telling is not None:
            with contextlib.suppress(ScriptError):  # the report of the call says it again
                await self._telling


class _Event(msgspec.Struct):
    delta: msgspec.Raw = msgspec.Raw(b"")


_EVENT: Final = msgspec.json.Decoder(_Event)
_NOTHING: Final = (b"", b"null", b'""', b"{}", b"[]", b"false", b"0")


def _is_output(data: bytes) -> bool:
    """Whether the event brings a piece of output. Those before it only announce a response, which may still fail."""
    try:
        return bytes(_EVENT.decode(data).delta) not in _NOTHING
    except (ValueError, RecursionError):
        return False
