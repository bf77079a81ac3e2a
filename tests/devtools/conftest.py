"""A perfect simulated gateway and a client that calls it."""

from collections.abc import Generator

import pytest
from support.gateway_caller import Caller, calling


@pytest.fixture
def caller() -> Generator[Caller]:
    with calling() as caller:
        yield caller
