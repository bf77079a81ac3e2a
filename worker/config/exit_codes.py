"""Exit codes of every command, and of a worker that does not start."""

from typing import Final

FAILED: Final = 1
WRONG: Final = 2
"""A setting or an argument is wrong; stderr says which and what to write."""
NO_ANSWER_YET: Final = 3
INTERRUPTED: Final = 130
