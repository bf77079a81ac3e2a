"""The contract profiles: which bodies of `POST /v1/responses` a fleet takes, beside each other.

A profile is an envelope with its own type of body. `contract` returns it for the models that a fleet serves.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, WithJsonSchema, create_model

from api_contracts.anyfast import MODELS
from api_contracts.envelope import Envelope
from api_contracts.generation import GenerationRequest

Profile = Literal["anyfast", "openai"]
PROFILES: Final[tuple[str, ...]] = get_args(Profile)
DEFAULT_PROFILE: Final[Profile] = "anyfast"

_ENVELOPES: Final = {
    "anyfast": ("api_contracts.generation", "GenerationRequest"),
    "openai": ("api_contracts.openai", "OpenAIGenerationRequest"),
}
"""Module and name: a profile that nobody uses is not imported."""


def contract(profile: str = DEFAULT_PROFILE, models: Iterable[str] = MODELS) -> type[Envelope]:
    """The envelope of a profile whose requests may name these models. The same type for the same arguments.

    Raises ValueError for a profile that is none, and where no model is named.
    """
    named = tuple(dict.fromkeys(models))
    if profile not in _ENVELOPES:
        raise ValueError(f"must be {' or '.join(PROFILES)}")
    if not named:
        raise ValueError("must name a model")
    return GenerationRequest if (profile, named) == (DEFAULT_PROFILE, MODELS) else _for_models(profile, named)


@cache
def _for_models(profile: str, models: tuple[str, ...]) -> type[Envelope]:
    module, name = _ENVELOPES[profile]
    envelope: type[Envelope] = getattr(import_module(module), name)
    narrowed = _narrowed(envelope.body_type(), "model", _one_of(models))
    return _narrowed(envelope, "body", narrowed)


def _one_of(models: tuple[str, ...]) -> Any:
    return Annotated[Literal[models], WithJsonSchema({"type": "string", "enum": list(models)})]


def _narrowed(base: Any, name: str, annotation: Any) -> Any:
    """The same model with one field of another type."""
    old = base.model_fields[name]
    field = Field(... if old.is_required() else old.default, description=old.description)
    fields: Any = {name: (annotation, field)}
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
