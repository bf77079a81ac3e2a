"""Script commands, declared once: their keys, arguments and replies have names and types on both sides.

Python declares a `Command`; Lua repeats the names above the function that implements it:

    -- KEYS inflight leases
    -- ARGV token reason
    function commands.bury(key, arg)

`Script.load` compares the two and raises `SignatureError` when they differ, so that a mismatch ends the import and
never reaches a server. It then writes the end of the script: a dispatch that reads KEYS and ARGV into `key`, `arg`
and `rows` by these names.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import UnionType
from typing import Any, Final, Generic, NamedTuple, TypeVar

R = TypeVar("R")
Argument = str | bytes | int | float | None
Kind = type[str | bytes | int | float | None] | UnionType
"""Of an argument. `int | None` is a number that may be missing."""

Encoder = Callable[[Argument], bytes]

PRELUDE: Final = "storage/lua/prelude.lua"


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
        object.__setattr__(self, "encoders", _encoders_of(self.args))


class Row(NamedTuple):
    """The keys and arguments of one thing."""

    keys: Mapping[str, str]
    args: Mapping[str, Argument]


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
    _encoders: tuple[tuple[str, Encoder], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoders", _encoders_of(self.args))

    def words(
        self,
        keys: Mapping[str, str],
        args: Mapping[str, Argument],
        rows: Sequence[Row] = (),
        groups: Sequence[Row] = (),
    ) -> tuple[bytes, ...]:
        """The words behind EVALSHA and the digest: the number of keys, the keys, the command's name, its arguments.

        `keys` may hold more than the command wants. Raises TypeError for an argument that is missing, unknown or of
        another type, and KeyError for a missing key.
        """
        if args.keys() != self.args.keys():
            raise TypeError(f"{self.name} takes the arguments {', '.join(self.args)}; given: {', '.join(args)}")
        found = [keys[name].encode() for name in self.keys]
        found += [keys[name].encode() for name in self.optional if name in keys]
        said = [self.name.encode(), *(encode(args[name]) for name, encode in self._encoders)]
        if self.groups is not None:
            said.append(b"%d" % len(groups))
        for table, each in ((self.groups or Rows(""), groups), (self.rows or Rows(""), rows)):
            for row in each:
                found += [row.keys[name].encode() for name in table.keys]
                said += [encode(row.args[name]) for name, encode in table.encoders]
        return (b"%d" % len(found), *found, *said)


@dataclass(frozen=True, slots=True)
class Script:
    """Lua files joined into one script, in two forms: one refuses to write when Redis is full, one insists."""

    refusing: str = field(repr=False)
    insisting: str = field(repr=False)

    @classmethod
    def load(cls, *names: str, commands: Sequence[Command[Any]], **constants: str | int) -> "Script":
        """The Lua files `names`, paths below `worker`, behind the prelude; `constants` become locals in capitals.

        Raises SignatureError where the files and `commands` differ.
        """
        sources = [files("worker").joinpath(name).read_text(encoding="utf-8") for name in (PRELUDE, *names)]
        return cls.of("\n".join(sources), commands=commands, **constants)

    @classmethod
    def of(cls, source: str, *, commands: Sequence[Command[Any]], **constants: str | int) -> "Script":
        """A script of this Lua text, which must begin with the prelude."""
        _compare(source, commands)
        head = "".join(f"local {name} = {_literal(value)}\n" for name, value in constants.items())
        text = f"{head}{source}\n{_dispatch(commands)}"
        return cls(f"#!lua\n{text}", f"#!lua flags=allow-oom\n{text}")

    def text_for(self, command: Command[Any]) -> str:
        return self.insisting if command.even_when_full else self.refusing


def _encoders_of(args: Mapping[str, Kind]) -> tuple[tuple[str, Encoder], ...]:
    return tuple((name, _encoder(name, kind)) for name, kind in args.items())


def _encoder(name: str, kind: Kind) -> Encoder:
    """Writes one argument as Redis takes it; raises TypeError, naming the argument, for a value of another type."""
    types, encode = _ENCODINGS[kind]

    def encoded(value: Argument) -> bytes:
        if type(value) in types or (isinstance(value, str) and str in types):
            return encode(value)
        raise TypeError(f"{name} must be {getattr(kind, '__name__', kind)}, not {type(value).__name__}")

    return encoded


def _text(value: Any) -> bytes:
    return value if type(value) is bytes else value.encode()


def _number(value: Any) -> bytes:
    return b"" if value is None else repr(value).encode()


_ENCODINGS: Final[dict[Kind, tuple[tuple[type[Any], ...], Encoder]]] = {
    str: ((str, bytes), _text),
    bytes: ((str, bytes), _text),
    bool: ((bool,), lambda flag: b"1" if flag else b"0"),
    int: ((int,), _number),
    float: ((int, float), _number),
    int | None: ((int, type(None)), _number),
    float | None: ((int, float, type(None)), _number),
}


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


# The end of the script


def _dispatch(commands: Sequence[Command[Any]]) -> str:
    """A branch for each command; written out, because a table of readers would be built anew by every call."""
    lines = ["local K, A, rows, groups = KEYS, ARGV, {}, {}"]
    for command in commands:
        lines += [f"if A[1] == '{command.name}' then", *_group_reader(command), *_row_reader(command)]
        keys = [f"{name} = K[{at}]" for at, name in enumerate(command.keys, 1)]
        keys += [f"{name} = K[{at}] or false" for at, name in enumerate(command.optional, 1 + len(command.keys))]
        args = [f"{name} = {_read(kind, str(at))}" for at, (name, kind) in enumerate(command.args.items(), 2)]
        lines += [
            f"return commands.{command.name}({{ {', '.join(keys)} }}, {{ {', '.join(args)} }}, rows, groups)",
            "end",
        ]
    return "\n".join([*lines, "return redis.error_reply('ERR unknown command ' .. tostring(A[1]))"])


def _row_reader(command: Command[Any]) -> list[str]:
    if command.rows is None:
        return []
    keys, args = command.rows.keys, command.rows.args
    first_key, first_arg = str(1 + len(command.keys)), str(2 + len(command.args))
    if command.groups is not None:
        first_key += f" + {len(command.groups.keys)} * #groups"
        first_arg += f" + 1 + {len(command.groups.args)} * #groups"
    count = f"(#K - ({first_key}) + 1) / {len(keys)}" if keys else f"(#A - ({first_arg}) + 1) / {len(args)}"
    return [f"for i = 0, {count} - 1 do rows[i + 1] = {{ {_fields(command.rows, first_key, first_arg)} }} end"]


def _group_reader(command: Command[Any]) -> list[str]:
    if command.groups is None:
        return []
    length = 2 + len(command.args)
    fields = _fields(command.groups, str(1 + len(command.keys)), str(1 + length))
    return [
        f"for i = 0, tonumber(A[{length}]) - 1 do groups[i + 1] = {{ {fields} }} end",
    ]


def _fields(rows: Rows, first_key: str, first_arg: str) -> str:
    """The fields of row `i`, counted from 0."""
    keys, args = len(rows.keys), len(rows.args)
    fields = [f"{name} = K[{first_key} + {at} + {keys} * i]" for at, name in enumerate(rows.keys)]
    fields += [
        f"{name} = {_read(kind, f'{first_arg} + {at} + {args} * i')}"
        for at, (name, kind) in enumerate(rows.args.items())
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
