"""Deliveries that are lost again and again: each ends, and a bystander is never taken for the killer."""

import random
from collections import Counter
from typing import Final

import pytest
from support.ledger_parts import COMPLETED, FAILED, LANES, LEASE_MS, Desk, claim_of

from worker.queue.claims import Delivery, Lease, Reclaimed
from worker.queue.ledger import Ledger
from worker.request.policy import POISON_CRASHES, suspects_beside
from worker.request.quarantine import Quarantine

LOST_MOST: Final = 5
LOST_LAST: Final = 7


async def lose(desk: Desk) -> list[Reclaimed]:
    """Every lease runs out while the reclaimer ticks."""
    rows = [*(await desk.ledger.reclaim(LANES)).lost]
    for _ in range(5):
        desk.advance(LEASE_MS // 4)
        rows += (await desk.ledger.reclaim(LANES)).lost
    return rows


async def take_all(ledger: Ledger) -> list[Delivery]:
    await ledger.promote(LANES)
    taken: list[Delivery] = []
    while some := (await ledger.pop({"interactive": 64})).deliveries:
        taken += some
    return taken


async def test_a_message_that_is_lost_before_its_claim_is_handed_over_and_at_last_buried(desk: Desk) -> None:
    desk.enqueue("m")
    for time in range(1, LOST_MOST):
        desk.advance(2_000)
        assert len(await take_all(desk.ledger)) == 1
        (lost,) = await lose(desk)
        assert (lost.handed, lost.crashes) == (None, 0), time

    desk.advance(2_000)
    await take_all(desk.ledger)
    handed = [row.handed for row in [*await lose(desk), *await lose(desk), *await lose(desk)]]

    assert [(one.message, one.lost) for one in handed if one] == [(b"m", True), (b"m", True)], (
        "its holders died as well"
    )
    assert [fields[b"reason"] for _, fields in desk.redis.xrange("responses:dead")] == [b"lost"]
    assert desk.places() == {}


async def test_what_was_handed_over_is_answered_and_kept_as_a_dead_letter(desk: Desk) -> None:
    desk.enqueue("m")
    handed: list[Delivery] = []
    while not handed:
        desk.advance(2_000)
        await take_all(desk.ledger)
        for _ in range(6):
            desk.advance(LEASE_MS // 4)
            handed += [row.handed for row in (await desk.ledger.reclaim(LANES)).lost if row.handed]

    await desk.ledger.answer(handed[0], claim_of(), FAILED, dead_letter_reason="lost")

    assert [entry[0] for entry in desk.results()] == ["r"]
    assert desk.redis.xlen("responses:dead") == 1
    assert desk.places() == {}


async def test_what_was_lost_together_comes_back_one_by_one(desk: Desk) -> None:
    """So that the one that kills its reader dies with nobody but itself."""
    desk.enqueue(*"abcde")
    for _ in range(2):
        await take_all(desk.ledger)
        await lose(desk)

    seen: list[int] = []
    for _ in range(5):
        seen.append(await desk.ledger.promote(LANES))
        desk.advance(1_000)

    assert sum(seen) == 5
    assert max(seen[1:]) <= 1


@pytest.mark.parametrize(("others", "silent", "expected"), [(0, 0, (1, True)), (3, 0, (4, False)), (0, 3, (1, False))])
async def test_a_loss_is_told_what_fell_with_it(
    desk: Desk, others: int, silent: int, expected: tuple[int, bool]
) -> None:
    """Others of its process, claimed with no fewer crashes, and those that were not claimed; of no other process."""
    another = Ledger(desk.runner)
    for number in range(3):
        desk.enqueue("x")
        await another.claim((await another.pop({"interactive": 1})).deliveries[0], claim_of(f"x{number}"))
    desk.enqueue(*("m" * (1 + others + silent)))
    taken = (await desk.ledger.pop({"interactive": 10})).deliveries
    for number, delivery in enumerate(taken[: 1 + others]):
        await desk.ledger.claim(delivery, claim_of(f"r{number}"))
    desk.redis.hset("responses:request:acme:r0", "crashes", 1 if silent else 0)

    await lose(desk)

    lease = await desk.ledger.claim((await take_all(Ledger(desk.runner)))[0], claim_of("r0"))
    assert isinstance(lease, Lease)
    assert (lease.group, lease.alone) == expected


class Fleet:
    """Processes that die of one request; each has places, and takes what it can."""

    def __init__(self, desk: Desk, killers: set[str], places: int) -> None:
        self.desk, self.killers, self.places = desk, killers, places
        self.answers: Counter[tuple[str, str]] = Counter()
        self.deaths = 0

    async def live(self) -> None:
        """One process, from its start until its lanes are empty or it dies."""
        ledger, quarantine = Ledger(self.desk.runner), Quarantine()
        running: list[Lease] = []
        await ledger.promote(LANES)
        while len(running) < self.places and not quarantine.closed:
            taken = (await ledger.pop({"interactive": 1})).deliveries
            if not taken:
                break
            running += await self.begin(ledger, quarantine, taken[0])
        ran = {lease.claim.request_id for lease in running}
        if quarantine.closed and len(running) > 1:  # the suspect waits until all others have ended
            await self.end(ledger, quarantine, running[:-1])
            del running[:-1]
            ran = {lease.claim.request_id for lease in running} | (ran & self.killers)
        if ran & self.killers:
            self.deaths += 1
            await lose(self.desk)
            return
        await self.end(ledger, quarantine, running)
        self.desk.advance(2_000)

    async def begin(self, ledger: Ledger, quarantine: Quarantine, delivery: Delivery) -> list[Lease]:
        request_id = delivery.message.decode()
        lease = await ledger.claim(delivery, claim_of(request_id))
        assert isinstance(lease, Lease)
        if lease.crashes >= POISON_CRASHES and lease.alone:
            await ledger.complete(lease, FAILED, kept_ms=1_000)
            self.answers[request_id, "poison"] += 1
            return []
        if not quarantine.enter(delivery.token, suspects_beside(lease)):
            await ledger.park(lease, delay_ms=2_000, failures=0, throttle_ms=0)
            return []
        return [lease]

    async def end(self, ledger: Ledger, quarantine: Quarantine, leases: list[Lease]) -> None:
        for lease in leases:
            if lease.claim.request_id in self.killers:
                return
            await ledger.complete(lease, COMPLETED, kept_ms=1_000)
            quarantine.leave(lease.delivery.token)
            self.answers[lease.claim.request_id, "completed"] += 1


@pytest.mark.parametrize(("count", "killers"), [(1, 1), (2, 1), (7, 1), (60, 1), (60, 2), (60, 0)])
async def test_killers_are_found_by_halving_and_bystanders_are_answered(desk: Desk, count: int, killers: int) -> None:
    """Fresh requests arrive all the while; deaths grow with the logarithm of the crowd."""
    rng, names = random.Random(count), [f"n{number}" for number in range(count)]
    fleet = Fleet(desk, set(rng.sample(names, killers)), places=100)
    desk.enqueue(*names)
    for number in range(80):
        fresh = f"fresh-{number}"
        names.append(fresh)
        desk.enqueue(fresh)
        await fleet.live()
        if desk.places() == {}:
            break

    assert fleet.answers == Counter({(name, "poison" if name in fleet.killers else "completed"): 1 for name in names})
    assert fleet.deaths <= killers * (3 + count.bit_length())


async def test_after_two_kills_from_outside_all_run_again_in_two_halves(desk: Desk) -> None:
    """And not one at a time."""
    desk.enqueue(*(f"n{number}" for number in range(60)))
    for _ in range(2):
        for delivery in await take_all(ledger := Ledger(desk.runner)):
            await ledger.claim(delivery, claim_of(delivery.message.decode()))
        await lose(desk)

    fleet, rounds = Fleet(desk, set(), places=100), 0
    while desk.places():
        await fleet.live()
        rounds += 1

    assert rounds == 2
    assert len(fleet.answers) == 60
