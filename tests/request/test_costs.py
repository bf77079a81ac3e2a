"""The cost of an answer is that of its tokens; an answer without a price or without a count has none."""

import asyncio
from collections import deque
from dataclasses import replace

import pytest
from support.processor_parts import POLICY, execution_of, failing, processor
from support.processor_world import ANSWER, World

from api_contracts import ErrorCode, GenerationResult
from api_contracts.responses import Usage
from worker.queue.usage import Used
from worker.request.costs import Price, cost_usd

PRICE = Price(input=0.25, cached_input=0.025, output=2.0)
PRICES = {"gpt-5.4-mini": PRICE}


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"input_tokens": 1_000_000}, 0.25),
        ({"output_tokens": 1_000_000}, 2.0),
        ({"input_tokens": 1_000_000, "input_tokens_details": {"cached_tokens": 400_000}}, 0.16),
        ({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 90}}, 0.00000025),
        ({"input_tokens": 1, "output_tokens": 1}, 0.00000225),
        ({}, 0.0),
    ],
)
def test_each_kind_of_token_has_its_price(usage: dict[str, object], cost: float) -> None:
    assert PRICE.of(Usage.model_validate(usage)) == pytest.approx(cost, abs=1e-9)


def test_what_is_not_known_costs_nothing_known() -> None:
    assert cost_usd(PRICES, "another", Usage(input_tokens=1)) is None
    assert cost_usd(PRICES, "gpt-5.4-mini", None) is None


def test_a_result_tells_its_cost() -> None:
    answer = replace(ANSWER, usage=Usage(input_tokens=1_000, output_tokens=500))
    world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED), answer]))

    asyncio.run(processor(world, replace(POLICY, prices=PRICES)).process(execution_of()))

    assert world.result["cost_usd"] == 0.00125


def test_a_result_without_a_price_is_as_ever() -> None:
    world = World(outcomes=deque([replace(ANSWER, usage=Usage(input_tokens=1_000))]))

    asyncio.run(processor(world).process(execution_of()))

    assert "cost_usd" not in world.result
    assert GenerationResult.model_fields["cost_usd"].default is None


def test_the_accounts_get_the_numbers_of_the_result() -> None:
    usage = Usage.model_validate(
        {"input_tokens": 1_000, "input_tokens_details": {"cached_tokens": 400}, "output_tokens": 500}
    )
    answered, failed = World(outcomes=deque([replace(ANSWER, usage=usage)])), World(lease={"left_ms": 0})
    for world in (answered, failed):
        asyncio.run(processor(world, replace(POLICY, prices=PRICES)).process(execution_of()))

    used = [world.heard("complete")[0]["answer"].used for world in (answered, failed)]
    assert used == [
        Used(model="gpt-5.4-mini", input_tokens=1_000, cached_tokens=400, output_tokens=500, cost_usd=0.00116),
        Used(model="gpt-5.4-mini"),
    ]
