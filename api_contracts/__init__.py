"""The agreement of callers and workers: the envelope, the request, the result, and every shared name.

Nothing here imports the worker; a service that enqueues or reads results needs only this package. Names are imported
when they are first used: pydantic takes longer to import than a command line may take to print its help.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from api_contracts.anyfast import MODELS, InputMessage, ResponsesRequest
    from api_contracts.errors import ErrorCode, MappedError, UpstreamError
    from api_contracts.fields import Timestamp, rfc3339
    from api_contracts.generation import CONTRACT_VERSION, Attempt, GenerationRequest, GenerationResult, Timing
    from api_contracts.profiles import contract
    from api_contracts.responses import ErrorBody, ResponseObject, StreamEvent, Usage
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
    "contract",
    "rfc3339",
]

_MODULES: Final = ("violations", "errors", "fields", "responses", "anyfast", "generation", "profiles")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"api_contracts.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
