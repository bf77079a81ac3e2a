"""Script commands, declared once: their keys, arguments and replies have names and types on both sides.

Python declares a `Command`; Lua repeats the names above the function that implements it:

    -- KEYS inflight leases
    -- ARGV token reason
    function commands.bury(key, arg)

`Script.load` compares the two and raises `SignatureError` when they differ, so that a mismatch ends the import and
never reaches a server. It then writes the end of the script: a dispatch that reads KEYS and ARGV into `key`, `arg`
and `rows` by these names, for one call or for several.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from worker.storage.arguments import Argument, Encoder, Kind, encoders_of
from worker.storage.constants import bare, inlined
from worker.storage.parts import Part, text_of

__all__ = ["Argument", "Command", "Kind", "Row", "Rows", "Script", "SignatureError", "Words", "together"]

R = TypeVar("R")
PRELUDE: Final = "storage/lua/prelude.lua"
CALLS: Final = "storage/lua/calls.lua"
_PLACES: Final = 255
"""Keys that one byte can tell apart."""


class SignatureError(Exception):
    """A Lua file and the Python declaration of its commands differ; the message says in what."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The arguments of a command for each of many things, such as lanes: these keys and arguments of each."""

    name: str
    keys: tuple[str, ...] = ()
    args: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    encoders: tuple[tuple[str, Encoder], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoders", encoders_of(self.args))


class Row(NamedTuple):
    """The keys and arguments of one thing."""

    keys: Mapping[str, str]
    args: Mapping[str, Argument]


class Words(NamedTuple):
    """One call: its keys; and the command's name, the numbers of keys and of arguments, the arguments."""

    keys: tuple[bytes, ...]
    args: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.keys)) + sum(map(len, self.args))


def together(calls: Collection[Words]) -> tuple[bytes, ...]:
    """The words behind EVALSHA and the digest for calls of one script, of which one run makes all.

    A key that several calls name goes out once: a last word says which key stands at each place, and is empty where
    each stands at its own. The reply is that of the call where it is one, and a list of their replies and errors where
    there are several.
    """
    keys = [key for call in calls for key in call.keys]
    args = [word for call in calls for word in call.args]
    known: dict[bytes, int] = {}
    places = [known.setdefault(key, len(known) + 1) for key in keys]
    if len(known) == len(keys) or len(known) > _PLACES:
        return (b"%d" % len(keys), *keys, *args, b"")
    return (b"%d" % len(known), *known, *args, bytes(places))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Command(Generic[R]):
    """One command of a script. Keys in `optional` come after those in `keys` and may be left out, the last first."""

    name: str
    keys: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    args: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    groups: Rows | None = None
    """A second table, which comes before the rows, after its length."""
    rows: Rows | None = None
    reply: Callable[[Any], R]
    even_when_full: bool = False
    """Whether it may write when Redis has no memory left."""
    large_reply: bool = False
    """Whether its reply may have megabytes: then it goes by a connection of its own."""
    first: bool = False
    """Whether its script runs before the others of the same round trip: what it writes is read by them."""
    _encoders: tuple[tuple[str, Encoder], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoders", encoders_of(self.args))

    def words(
        self,
        keys: Mapping[str, str],
        args: Mapping[str, Argument],
        rows: Sequence[Row] = (),
        groups: Sequence[Row] = (),
    ) -> "Words":
        """The call as its script reads it.

        `keys` may hold more than the command wants. Raises TypeError for an argument that is missing, unknown or of
        another type, and KeyError for a missing key.
        """
        if len(args) != len(self.args) or not all(name in args for name in self.args):
            raise TypeError(f"{self.name} takes the arguments {', '.join(self.args)}; given: {', '.join(args)}")
        found = [keys[name].encode() for name in self.keys]
        found += [keys[name].encode() for name in self.optional if name in keys]
        said = [encode(args[name]) for name, encode in self._encoders]
        if self.groups is not None:
            said.append(b"%d" % len(groups))
        for table, each in ((self.groups, groups), (self.rows, rows)):
            if table is None:
                continue
            for row in each:
                found += [row.keys[name].encode() for name in table.keys]
                said += [encode(row.args[name]) for name, encode in table.encoders]
        return Words(tuple(found), (self.name.encode(), b"%d" % len(found), b"%d" % len(said), *said))


@dataclass(frozen=True, slots=True)
class Script:
    """Lua files joined into one script, in two forms: one refuses to write when Redis is full, one insists."""

    refusing: str = field(repr=False)
    insisting: str = field(repr=False)

    @classmethod
    def load(cls, *parts: "str | Part", commands: Sequence[Command[Any]], **constants: str | int) -> "Script":
        """The Lua files that `parts` name, paths below `worker`, behind the prelude; `constants` become capitals.

        Raises SignatureError where the files and `commands` differ.
        """
        return cls.of(text_of(PRELUDE, *parts), commands=commands, **constants)

    @classmethod
    def of(cls, source: str, *, commands: Sequence[Command[Any]], **constants: str | int) -> "Script":
        """A script of this Lua text, which must begin with the prelude."""
        _compare(source, commands)
        head = "".join(f"local {name} = {_literal(value)}\n" for name, value in constants.items())
        text = bare(inlined(f"{head}{source}\n{_dispatch(commands)}"))
        return cls(f"#!lua\n{text}", f"#!lua flags=allow-oom\n{text}")

    def text_for(self, command: Command[Any]) -> str:
        return self.insisting if command.even_when_full else self.refusing


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


# The end of the script

_CALL: Final = """
local K, A, k, a = KEYS, ARGV, 0, 0
local function make_call()
  local rows, groups = {}, {}"""


def _dispatch(commands: Sequence[Command[Any]]) -> str:
    """A branch for each command; written out, because a table of readers would be built anew by every run."""
    branches = [line for command in commands for line in _branch(command)]
    last = "  return redis.error_reply('ERR unknown command ' .. tostring(A[a + 1]))"
    return "\n".join([_CALL, *branches, last, "end", text_of(CALLS)])


def _branch(command: Command[Any]) -> list[str]:
    keys = [f"{name} = K[k + {at}]" for at, name in enumerate(command.keys, 1)]
    optional = enumerate(command.optional, 1 + len(command.keys))
    keys += [f"{name} = tonumber(A[a + 2]) >= {at} and K[k + {at}]" for at, name in optional]
    args = [f"{name} = {_read(kind, f'a + {at}')}" for at, (name, kind) in enumerate(command.args.items(), 4)]
    given = f"{{ {', '.join(keys)} }}, {{ {', '.join(args)} }}, rows, groups"
    return [
        f"  if A[a + 1] == '{command.name}' then",
        *_group_reader(command),
        *_row_reader(command),
        f"    return commands.{command.name}({given})",
        "  end",
    ]


def _row_reader(command: Command[Any]) -> list[str]:
    if command.rows is None:
        return []
    keys, args = command.rows.keys, command.rows.args
    first_key, first_arg = str(len(command.keys)), str(len(command.args))
    if command.groups is not None:
        first_key += f" + {len(command.groups.keys)} * #groups"
        first_arg += f" + 1 + {len(command.groups.args)} * #groups"
    count = f"(A[a + 2] - ({first_key})) / {len(keys)}" if keys else f"(A[a + 3] - ({first_arg})) / {len(args)}"
    return [f"    for i = 0, {count} - 1 do rows[i + 1] = {{ {_fields(command.rows, first_key, first_arg)} }} end"]


def _group_reader(command: Command[Any]) -> list[str]:
    if command.groups is None:
        return []
    length = len(command.args)
    fields = _fields(command.groups, str(len(command.keys)), str(length + 1))
    return [f"    for i = 0, A[a + {length + 4}] - 1 do groups[i + 1] = {{ {fields} }} end"]


def _fields(rows: Rows, keys_before: str, args_before: str) -> str:
    """The fields of row `i`, counted from 0."""
    keys, args = len(rows.keys), len(rows.args)
    fields = [f"{name} = K[k + {keys_before} + {at} + {keys} * i]" for at, name in enumerate(rows.keys, 1)]
    fields += [
        f"{name} = {_read(kind, f'a + {args_before} + {at} + {args} * i')}"
        for at, (name, kind) in enumerate(rows.args.items(), 4)
    ]
    return ", ".join(fields)


def _read(kind: Kind, at: str) -> str:
    if kind is str or kind is bytes:
        return f"A[{at}]"
    if kind is bool:
        return f"A[{at}] == '1'"
    return f"tonumber(A[{at}])" + (" or false" if isinstance(kind, UnionType) else "")


# The comparison with the Lua text

_SIGNATURE: Final = re.compile(r"((?:^--.*\n)*)^function commands\.(\w+)\(.*\)\n((?:.*\n)*?)^end$", re.MULTILINE)
_NAMED: Final = re.compile(r"^-- (KEYS|ARGV|GROUPS|ROWS) (.*)$", re.MULTILINE)
_USED: Final = {"key": re.compile(r"\bkey\.(\w+)"), "arg": re.compile(r"\barg\.(\w+)")}


def _compare(source: str, commands: Sequence[Command[Any]]) -> None:
    written = {name: (_signature(comment), body) for comment, name, body in _SIGNATURE.findall(source)}
    declared = {command.name: command for command in commands}
    if written.keys() != declared.keys():
        raise SignatureError(f"Lua has the commands {sorted(written)}, Python declares {sorted(declared)}")
    for name, (signature, body) in written.items():
        expected = _declared(declared[name])
        if signature != expected:
            raise SignatureError(f"{name}: Lua says {_shown(signature)}; Python declares {_shown(expected)}")
        names = {"key": {*declared[name].keys, *declared[name].optional}, "arg": {*declared[name].args}}
        for table, pattern in _USED.items():
            if unknown := set(pattern.findall(body)) - names[table]:
                raise SignatureError(f"{name}: Lua uses {table}.{min(unknown)}, which is not declared")


def _signature(comment: str) -> dict[str, str]:
    said = {"KEYS": "", "ARGV": "", "GROUPS": "", "ROWS": ""}
    for part, names in _NAMED.findall(comment):
        said[part] = f"{said[part]} {names}".strip()
    return said


def _declared(command: Command[Any]) -> dict[str, str]:
    optional = (f"[{name}]" for name in command.optional)
    return {
        "KEYS": " ".join([*command.keys, *optional]),
        "ARGV": " ".join(command.args),
        "GROUPS": _table(command.groups),
        "ROWS": _table(command.rows),
    }


def _table(rows: Rows | None) -> str:
    return " ".join([f"{rows.name}:", *rows.keys, "|", *rows.args]) if rows else ""


def _shown(signature: Mapping[str, str]) -> str:
    return ", ".join(f"{part} {names}" for part, names in signature.items() if names) or "nothing"
