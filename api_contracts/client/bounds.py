"""Bounds that a client keeps unless it is told otherwise; light, because every import of the client reads them."""

from typing import Final

BACKLOG_LIMIT: Final = 100_000
"""Messages on a lane at which `enqueue` says no: the workers are hours behind, and Redis is not a disk."""

BACKLOG_BYTES: Final = 2 * 1024**3
"""Memory of a lane, as Redis estimates it, at which `enqueue` says no as well."""
