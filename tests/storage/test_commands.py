"""One contract between Python and Lua: a script that differs from its declaration is not loaded."""

import re
from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import Any, Final, get_args

import pytest
import redis
from redis.exceptions import ResponseError
from support.admission_parts import failing, open_budget, shut
from support.diagrams import moves, states, table
from support.ledger_parts import COMPLETED, Desk, open_desk

from worker.admission.commands import ADMIT, HEARD, OVERRIDE, PAUSE, REPORT, RESUME
from worker.admission.grants import Gate
from worker.operations.dead_letters import LETTERS, REPLAY
from worker.queue import commands as ledger
from worker.queue.queued_cancellation import PAGES, TAKE
from worker.storage.commands import Command, Row, Rows, Script, SignatureError, together
from worker.storage.errors import may_pass

LUA: Final = """
local commands = {}
-- Moves a message.
-- KEYS source target
-- ARGV token amount
-- ROWS lanes: list | lane
function commands.move(key, arg, lanes)
  return { key.source, key.target, arg.token, arg.amount + 1, #lanes, lanes[1].list, lanes[2].lane }
end
"""
FIELDS: Final[dict[str, Any]] = {
    "name": "move",
    "keys": ("source", "target"),
    "args": {"token": str, "amount": int},
    "rows": Rows("lanes", ("list",), {"lane": str}),
    "reply": list,
}
LEDGER: Final[list[Command[Any]]] = [value for value in vars(ledger).values() if isinstance(value, Command)]
READING: Final = {"renew", "cancelled", "forget", "page", "serve"}
"""Commands that move no message."""


def declared(**changes: Any) -> Command[Any]:
    return Command(**(FIELDS | changes))


MOVE: Final = declared()


def source(path: str) -> str:
    return files("worker").joinpath(path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"name": "moved"}, id="another name"),
        pytest.param({"keys": ("target", "source")}, id="keys in another order"),
        pytest.param({"keys": ("source",)}, id="a key less"),
        pytest.param({"optional": ("other",)}, id="an optional key more"),
        pytest.param({"args": {"token": str}}, id="an argument less"),
        pytest.param({"args": {"amount": int, "token": str}}, id="arguments in another order"),
        pytest.param({"args": {"token": str, "amount": int, "more": int}}, id="an argument more"),
        pytest.param({"rows": None}, id="no rows"),
        pytest.param({"rows": Rows("lanes", (), {"lane": str})}, id="rows without a key"),
    ],
)
def test_a_declaration_that_lua_does_not_share_is_not_loaded(wrong: dict[str, Any]) -> None:
    with pytest.raises(SignatureError, match="move"):
        Script.of(LUA, commands=(declared(**wrong),))


def test_a_command_that_only_one_side_knows_is_not_loaded() -> None:
    with pytest.raises(SignatureError, match="more"):
        Script.of(LUA, commands=(MOVE, declared(name="more")))
    with pytest.raises(SignatureError, match="move"):
        Script.of(LUA, commands=())


@pytest.mark.parametrize(("use", "instead"), [("key.source", "key.surce"), ("arg.token", "arg.tokn")])
def test_lua_that_uses_an_undeclared_name_is_not_loaded(use: str, instead: str) -> None:
    """Lua itself would read nil."""
    with pytest.raises(SignatureError, match=instead):
        Script.of(LUA.replace(use, instead), commands=(MOVE,))


def test_one_run_makes_several_calls_and_the_error_of_one_is_its_own(valkey: Any) -> None:
    lanes = [Row({"list": f"list-{lane}"}, {"lane": lane}) for lane in "ab"]
    names, script = {"target": "t", "source": "s"}, Script.of(LUA, commands=(MOVE,)).text_for(MOVE)
    good = MOVE.words(names, {"amount": 41, "token": "x"}, lanes)
    bad = MOVE.words(names, {"amount": 1, "token": "y"})
    unknown = good._replace(args=(b"nonsense", *good.args[1:]))

    first, broken, nonsense, last = valkey.execute_command("EVAL", script, *together([good, bad, unknown, good]))

    assert first == last == [b"s", b"t", b"x", 42, 2, b"list-a", b"b"]
    assert isinstance(broken, ResponseError)
    assert "unknown command nonsense" in str(nonsense)


@pytest.mark.parametrize(("lanes", "sent"), [(40, 42), (253, 255), (254, 2 * 256)])
def test_a_key_that_calls_share_goes_out_once(valkey: Any, lanes: int, sent: int) -> None:
    """As far as a byte can tell the keys apart."""
    rows = [Row({"list": f"list-{lane}"}, {"lane": str(lane)}) for lane in range(lanes)]
    call = MOVE.words({"target": "t", "source": "s"}, {"amount": 41, "token": "x"}, rows)
    other = MOVE.words({"target": "s", "source": "t"}, {"amount": 1, "token": "y"}, rows[::-1])

    words = together([call, other])
    first, last = valkey.execute_command("EVAL", Script.of(LUA, commands=(MOVE,)).text_for(MOVE), *words)

    assert int(words[0]) == sent
    assert first == [b"s", b"t", b"x", 42, lanes, b"list-0", b"1"]
    assert last == [b"t", b"s", b"y", 2, lanes, b"list-%d" % (lanes - 1), b"%d" % (lanes - 2)]


def test_a_refusal_has_the_same_words_in_a_run_of_several_calls(valkey: Any, redis_url: str) -> None:
    """By them the sender knows that it passes; with others a paid answer would be given up."""
    keep = Command(name="keep", keys=("place",), reply=bytes)
    lua = "local commands = {}\n-- KEYS place\nfunction commands.keep(key)\n  redis.call('SET', key.place, 1)\nend\n"
    script, words = Script.of(lua, commands=(keep,)).text_for(keep), keep.words({"place": "p"}, {})
    valkey.execute_command("ACL", "SETUSER", "keeper", "reset", "on", ">pw", "allkeys", "+eval", "+time")
    with redis.Redis.from_url(redis_url.replace("//", "//keeper:pw@")) as client:  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        ask: Any = client.execute_command  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped
        refused = [*ask("EVAL", script, *together([words, words]))]
        with pytest.raises(ResponseError) as alone:
            ask("EVAL", script, *together([words]))
        refused.append(alone.value)
    valkey.execute_command("ACL", "DELUSER", "keeper")

    assert [may_pass(error) for error in refused] == [True] * 3
    assert {str(error).split(":")[0] for error in refused} == {"ACL failure in script"}


def test_names_and_types_arrive_as_declared(valkey: Any) -> None:
    """Keys are counted, so that a proxy that reads the command sees them."""
    lanes = [Row({"list": f"list-{lane}"}, {"lane": lane}) for lane in "ab"]
    names = {"target": "t", "source": "s", "unused": "u"}
    words = MOVE.words(names, {"amount": 41, "token": "x"}, lanes)

    reply = valkey.execute_command("EVAL", Script.of(LUA, commands=(MOVE,)).text_for(MOVE), *together([words]))

    assert words.keys == (b"s", b"t", b"list-a", b"list-b")
    assert words.args == (b"move", b"4", b"4", b"x", b"41", b"a", b"b")
    assert reply == [b"s", b"t", b"x", 42, 2, b"list-a", b"b"]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"token": "x"}, "amount"),
        ({"token": "x", "amount": 1, "more": 1}, "more"),
        ({"token": 1, "amount": 1}, "token must be str, not int"),
        ({"token": "x", "amount": "1"}, "amount must be int, not str"),
        ({"token": "x", "amount": True}, "amount must be int, not bool"),
        ({"token": "x", "amount": None}, "amount must be int, not NoneType"),
    ],
)
def test_a_wrong_argument_is_named(args: dict[str, Any], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        MOVE.words({"source": "s", "target": "t"}, args)


def test_an_unknown_command_is_an_error(valkey: Any) -> None:
    with pytest.raises(ResponseError, match="unknown command nonsense"):
        valkey.eval(ledger.DELIVERIES.refusing, 0, "nonsense", 0, 0)


def test_the_diagram_of_a_delivery_has_the_places_and_moves_of_the_code() -> None:
    written = re.search(r"one of these places: ([\w, ]+)\.", source("queue/lua/ledger.lua"))
    state = re.search(r"^--   state +(.+)$", source("queue/lua/ledger.lua"), re.MULTILINE)
    commands = {command.name for command in [*LEDGER, PAGES, TAKE, LETTERS, REPLAY]} - READING

    assert written is not None
    assert state is not None
    assert states("delivery.md") == set(written[1].split(", ")) == table("delivery.md", "|---|---|---|")
    assert {label for *_, label in moves("delivery.md")} == commands | {"enqueue", "drop", ""}
    assert table("delivery.md", "| state | meaning |") == set(state[1].split(" | "))


def test_the_diagram_of_the_gate_has_the_states_and_moves_of_the_code() -> None:
    gates = re.search(r"^--   gate +(.+)$", source("admission/lua/state.lua"), re.MULTILINE)
    commands = {command.name for command in (ADMIT, REPORT, HEARD, PAUSE, RESUME, OVERRIDE)} - {"limits"}
    order = re.findall(r"^--   \d\. (\w+)", source("admission/lua/admit.lua"), re.MULTILINE)

    assert gates is not None
    shut_states = set(gates[1].split(" | "))
    assert shut_states == set(get_args(Gate)) - {""}
    assert order[:5] == ["late", "paused", "retry", "gate", "throttled"]
    drawn = states("gate.md")
    assert drawn == shut_states | {"open", "paused", "throttled"} == table("gate.md", "| state | new calls | ends |")
    assert {label.split()[0] for *_, label in moves("gate.md") if label} == commands | {"time"}


def undescribed(names: set[str], text: str) -> list[str]:
    return [name for name in sorted(names) if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


async def test_every_field_of_the_quota_hash_is_described(valkey: Any, redis_url: str) -> None:
    described = source("admission/lua/state.lua").partition("\n\n")[0]
    async with open_budget(valkey, redis_url) as budget:
        await budget.admission.override(rpm="600", tpm="60000", in_flight="30")
        await budget.ended(await budget.one())
        await shut(budget)
        seen = set(budget.state())
        await budget.admission.resume()
        budget.advance(60_000)
        for call in await budget.ask(9):
            await budget.tell(call, "overloaded")
        await failing(budget, 10)
        await budget.admission.pause()
        seen |= set(budget.state())
    names = {re.sub(":.*", ":<lane>", name) for name in seen}

    assert len(names) == 65
    assert undescribed(names, described) == []


@pytest.fixture
async def desk(valkey: Any, redis_url: str) -> AsyncGenerator[Desk]:
    async with open_desk(valkey, redis_url) as desk:
        yield desk


async def test_every_field_of_a_request_is_described(desk: Desk) -> None:
    described = source("queue/lua/ledger.lua").partition("\n\nlocal")[0]
    lease = await desk.leased()
    seen = set(desk.request())
    await desk.ledger.complete(lease, COMPLETED, kept_ms=1_000)
    seen |= set(desk.request())

    assert len(seen) > 12
    assert undescribed(seen, described) == []
