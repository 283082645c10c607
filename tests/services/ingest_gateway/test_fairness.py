"""Who is next: a clinic that stores a little now and then must not feel that another one sends its archive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from services.ingest_gateway.fairness import ThreadTurns, Turns


class Desk:
    """Turns that are asked for and ended by hand, by a clock that stands still."""

    def __init__(self, at_once: int, **rules: Any) -> None:
        self.now = 0.0
        self.order: list[str] = []
        self.turns = Turns("test", at_once, recent=2, clock=lambda: self.now, **rules)
        self._ends: dict[str, list[asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, tenant: str, count: int = 1, *, cost: float = 1.0) -> list["asyncio.Task[None]"]:
        """Asks for turns; those that are granted at once are in ``order`` afterwards."""
        tasks = [asyncio.create_task(self._take(tenant, cost)) for _ in range(count)]
        self._tasks.update(tasks)
        await settle()
        return tasks

    async def end(self, tenant: str) -> None:
        """Ends the oldest turn of a tenant."""
        self._ends[tenant].pop(0).set()
        await settle()

    def held(self, tenant: str) -> int:
        return len(self._ends.get(tenant, []))

    async def _take(self, tenant: str, cost: float) -> None:
        async with self.turns.turn(tenant, cost):
            self.order.append(tenant)
            ended = asyncio.Event()
            self._ends.setdefault(tenant, []).append(ended)
            await ended.wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def settle() -> None:
    """Lets every task go on until all wait."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def desk(at_once: int, **rules: Any) -> AsyncIterator[Desk]:
    made = Desk(at_once, **rules)
    try:
        yield made
    finally:
        await made.close()
        assert made.turns.present("flood") == made.turns.present("modest") == 0


async def test_who_has_had_least_is_next() -> None:
    """The modest clinic comes after a hundred of the flood, and does not wait for them."""
    async with desk(1) as at:
        await at.ask("flood", 100)
        await at.ask("modest", 3)
        for tenant in ("flood", "modest", "flood", "modest", "flood", "modest", "flood"):
            await at.end(tenant)
        assert at.order[:7] == ["flood", "modest", "flood", "modest", "flood", "modest", "flood"]


async def test_what_costs_more_comes_less_often() -> None:
    """Large packs count for what they are: who stores ten times as much in each gets a tenth as many."""
    async with desk(1) as at:
        await at.ask("flood", 10, cost=10)
        await at.ask("modest", 30)
        for _ in range(24):
            await at.end(at.order[-1])
        assert at.order[:24].count("modest") in range(19, 23)


async def test_somebody_alone_has_all_of_it() -> None:
    """Fairness must not make a single clinic slow on a machine that does nothing else."""
    async with desk(4) as at:
        await at.ask("flood", 9)
        assert at.held("flood") == 4


async def test_while_others_are_there_each_has_its_share() -> None:
    """A clinic that stores a little every second finds a turn free; the flood's long ones do not fill the machine."""
    async with desk(4) as at:
        await at.ask("modest")
        await at.ask("flood", 20)
        assert at.held("flood") == 2
        await at.end("modest")
        for _ in range(3):
            await at.end("flood")
        assert at.held("flood") == 2  # it may come again
        await at.ask("modest", 2)
        assert at.held("modest") == 2  # and does not wait
        await at.end("modest")
        await at.end("modest")
        at.now = 2.5
        await at.end("flood")
        assert at.held("flood") == 4  # it did not come again


async def test_turns_that_use_little_may_exceed_the_share_as_long_as_the_others_find_one() -> None:
    async with desk(6, strict=False) as at:
        await at.ask("modest")
        await at.end("modest")
        await at.ask("flood", 20)
        assert at.held("flood") == 5
        await at.ask("modest")
        assert at.held("modest") == 1


async def test_nobody_has_more_than_is_allowed_even_alone() -> None:
    async with desk(6, per_tenant=2, strict=False) as at:
        await at.ask("flood", 20)
        assert at.held("flood") == 2
        assert at.turns.present("flood") == 20


async def test_credit_is_not_saved_up() -> None:
    """Whoever was away for a week does not stop everybody else for an hour."""
    async with desk(1) as at:
        await at.ask("flood", 50)
        for _ in range(20):
            await at.end("flood")
        await at.ask("modest", 10)
        for _ in range(10):
            await at.end(at.order[-1])
        assert at.order[-10:].count("flood") >= 4


async def test_who_has_had_less_catches_up_at_once_within_bounds() -> None:
    """A clinic's study of the morning goes before the archive that somebody else has been sending all night."""
    async with desk(1, burst=5) as at:
        await at.ask("flood", 50)
        for _ in range(20):
            await at.end("flood")
        await at.ask("modest", 20)
        for _ in range(15):
            await at.end(at.order[-1])
        assert at.order[21:26] == ["modest"] * 5
        assert at.order[26:].count("modest") in (4, 5, 6)  # and then in turn


async def test_large_work_stops_while_small_work_of_somebody_else_is_done() -> None:
    """Two that share a machine take twice as long each; the modest clinic must not, as it asks for so little."""
    async with desk(4, burst=50, apart=5, patience=60) as at:
        await at.ask("flood", 100)
        for _ in range(60):
            await at.end("flood")
        assert at.held("flood") == 4
        await at.ask("modest")
        for _ in range(4):
            await at.end("flood")
        assert (at.held("modest"), at.held("flood")) == (1, 0)
        await at.end("modest")
        assert at.held("flood") == 2


async def test_large_work_stops_also_between_the_steps_of_small_work() -> None:
    """A store is many small steps; the flood must not rush in between any two of them."""
    async with desk(2, burst=50, apart=5, patience=60) as at:
        await at.ask("flood", 100)
        for _ in range(60):
            await at.end("flood")
        with at.turns.ahead("modest"):
            await at.end("flood")
            await at.end("flood")
            assert at.held("flood") == 0
            await at.ask("modest")
            await at.end("modest")
            assert at.held("flood") == 0
        await settle()
        assert at.held("flood") == 1


async def test_a_flood_of_many_requests_is_not_ahead_of_anybody() -> None:
    """What the flood began long ago must not hold up a store that comes now."""
    async with desk(2, burst=50, apart=5, patience=60) as at:
        with ExitStack() as requests:
            for _ in range(8):
                requests.enter_context(at.turns.ahead("flood"))
            await _flood_and_store(at)


async def _flood_and_store(at: Desk) -> None:
    await at.ask("flood", 300)
    for _ in range(200):
        await at.end("flood")
    with at.turns.ahead("modest"):
        for _ in range(20):
            await at.ask("modest")
            if at.held("flood"):
                await at.end("flood")
            assert at.held("modest") == 1
            await at.end("modest")


async def test_small_work_that_is_slow_stops_nobody_for_long() -> None:
    """An object store that is slow to answer the one must not bring the other to a standstill."""
    async with desk(2, burst=50, apart=5, patience=60) as at:
        await at.ask("flood", 100)
        for _ in range(60):
            await at.end("flood")
        await at.ask("modest")
        await at.end("flood")
        await at.end("flood")
        assert (at.held("modest"), at.held("flood")) == (1, 0)
        at.now += 59
        at.turns.grant()
        await settle()
        assert at.held("flood") == 0
        at.now += 2
        at.turns.grant()
        await settle()
        assert at.held("flood") == 1


async def test_who_have_had_the_same_go_on_side_by_side() -> None:
    """Fairness is no reason to leave half of the machine idle."""
    async with desk(4, burst=50, apart=5, patience=60) as at:
        await at.ask("one", 50)
        await at.ask("other", 50)
        for _ in range(30):
            await at.end("one")
            await at.end("other")
        assert (at.held("one"), at.held("other")) == (2, 2)


async def test_a_thread_takes_a_turn_for_each_block() -> None:
    """An upload that was given up ends with its next block, and leaves no turn behind."""
    turns = Turns("test", 1)
    blocks = ThreadTurns(turns, "flood")
    for _ in range(3):
        await asyncio.to_thread(blocks, 1 << 20)
        assert turns.present("flood") == 1
    await asyncio.to_thread(blocks, 0)
    assert turns.present("flood") == 1  # until the object store has answered
    blocks.close()
    assert turns.present("flood") == 0
    with pytest.raises(InterruptedError):
        await asyncio.to_thread(blocks, 1 << 20)
    assert turns.present("flood") == 0


async def test_who_gives_up_leaves_no_trace() -> None:
    """Senders that go away while they wait must not use up turns."""
    async with desk(1) as at:
        await at.ask("flood")
        for task in await at.ask("modest", 5):
            task.cancel()
        await settle()
        assert at.turns.present("modest") == 0
        await at.end("flood")
        await at.ask("flood")
        assert at.held("flood") == 1


async def test_a_turn_granted_to_somebody_who_just_gave_up_goes_to_the_next() -> None:
    async with desk(1) as at:
        await at.ask("flood")
        (task,) = await at.ask("modest")
        at._ends["flood"].pop(0).set()
        await asyncio.sleep(0)  # the flood's turn ends, and the modest one's is granted
        task.cancel()
        await settle()
        await at.ask("flood")
        assert at.held("flood") == 1


async def test_waiting_is_bounded() -> None:
    """A sender is told to come again rather than left hanging."""
    async with desk(1) as at:
        await at.ask("flood")
        with pytest.raises(TimeoutError):
            async with at.turns.turn("modest", timeout=0.01):
                pytest.fail("nothing was free")
        await at.end("flood")
        async with at.turns.turn("modest", timeout=10):
            assert at.turns.present("modest") == 1


async def test_a_tenant_with_a_bound_of_its_own_keeps_it_even_when_alone() -> None:
    """What an operator has set for one clinic holds, whatever the others have."""
    turns = Turns("test", 4)
    async with turns.turn("north", most=1), turns.turn("south"):
        with pytest.raises(TimeoutError):
            async with turns.turn("north", most=1, timeout=0.05):
                pytest.fail("a second turn at once")
        async with turns.turn("south", timeout=0.05):
            assert turns.present("south") == 2
