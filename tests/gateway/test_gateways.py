"""Each call goes by its own route: address, key, and the model's name there."""

import json
from collections.abc import AsyncGenerator

import pytest

from worker.devtools.devstack import Simulator
from worker.devtools.simulator import key_alias
from worker.gateway.answers import Answer
from worker.gateway.gateways import Gateways
from worker.gateway.upstream import Upstream

BODY = json.dumps(
    {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": '"model":"gpt-5.4-mini"'}], "top_p": 1.0}
).encode()


@pytest.fixture
async def gateways(gateway: Simulator) -> AsyncGenerator[Gateways]:
    gateway.configure(models=["gpt-5.4-mini", "openai/gpt-5.4-mini"])
    upstreams = {name: Upstream(name, gateway.url, lambda name=name: f"sk-{name}") for name in ("one", "two")}
    gateways = Gateways(upstreams, {"two": {"gpt-5.4-mini": "openai/gpt-5.4-mini"}})
    yield gateways
    await gateways.aclose()


async def test_a_call_goes_by_its_route_under_its_key(gateway: Simulator, gateways: Gateways) -> None:
    for route in ("one", "two"):
        call = await gateways.create(BODY, route=route, model="gpt-5.4-mini", stream=False, timeout_s=10)
        assert isinstance(call.outcome, Answer)

    one, two = gateway.calls()
    assert (one.key, one.model) == (key_alias("sk-one"), "gpt-5.4-mini")
    assert (two.key, two.model) == (key_alias("sk-two"), "openai/gpt-5.4-mini")
    assert one.prompt == two.prompt


async def test_a_body_whose_model_has_its_own_name_is_sent_as_it_is(gateway: Simulator, gateways: Gateways) -> None:
    await gateways.create(BODY, route="one", model="gpt-5.4-mini", stream=False, timeout_s=10)
    await gateways.create(BODY, route="two", model="another", stream=False, timeout_s=10)

    first, second = gateway.calls()
    assert first.body_sha256 == second.body_sha256
