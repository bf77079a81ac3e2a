"""The agreement of callers and workers: the envelope, the request, the result, and every shared name.

Nothing here imports the worker; a service that enqueues or reads results needs only this package.
"""

from api_contracts.errors import ErrorCode, MappedError, UpstreamError
from api_contracts.fields import Timestamp, rfc3339
from api_contracts.generation import CONTRACT_VERSION, Attempt, GenerationRequest, GenerationResult, Timing
from api_contracts.responses import (
    MODELS,
    ErrorBody,
    InputMessage,
    ResponseObject,
    ResponsesRequest,
    StreamEvent,
    Usage,
)
from api_contracts.violations import ContractViolation, Violation

__all__ = [
    "CONTRACT_VERSION",
    "MODELS",
    "Attempt",
    "ContractViolation",
    "ErrorBody",
    "ErrorCode",
    "GenerationRequest",
    "GenerationResult",
    "InputMessage",
    "MappedError",
    "ResponseObject",
    "ResponsesRequest",
    "StreamEvent",
    "Timestamp",
    "Timing",
    "UpstreamError",
    "Usage",
    "Violation",
    "rfc3339",
]
