"""The findings of a check, as they travel between the two processes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The first fault that was found. `field` and `rule` hold names from the caller's schema, and nothing else."""

    field: str
    """The place in the request or in the response, such as `body.text.format.schema.properties.age`."""
    rule: str
    """Completes the sentence "<field> ...", for the result of the request."""
    complaint: str = ""
    """The validator's own words, for the model alone: they may quote the answer. Empty: asking again is of no use."""
