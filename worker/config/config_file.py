"""The file that WORKER_CONFIG_FILE names: accounts, routes and prices, as TOML.

A mistake is one line: its place in the file, and what to write. All mistakes are told at once. No line repeats a
value, for it may be a key.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.config.routing import Account, Budget, KeySource, Price, Route, Routing
from worker.config.toml_places import line_of, lines_of, place_of
from worker.config.values import between, gateway_url

LONGEST_FILE: Final = 1024 * 1024
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ModelName = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f]{1,128}$")]

_INLINE_KEYS: Final = frozenset({"key", "api_key", "apikey", "token", "secret", "password"})
_WHERE: Final = re.compile(r"at line (\d+), column (\d+)")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class Limits(_Table):
    requests_per_minute: int = Field(0, ge=0, le=10**9, strict=True)
    """Requests a minute; 0 = unknown."""

    tokens_per_minute: int = Field(0, ge=0, le=10**12, strict=True)
    """Tokens a minute; 0 = unknown."""

    max_in_flight: int = Field(0, ge=0, le=10**9, strict=True)
    """Calls in flight; 0 = unknown."""

    def budget(self) -> Budget:
        return Budget(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_in_flight=self.max_in_flight,
        )


class AccountTable(Limits):
    models: dict[ModelName, Limits] = Field(default_factory=dict[str, Limits])
    """Limits of single models inside the account: `[accounts.NAME.models."MODEL"]`."""


class RouteTable(_Table):
    url: str
    """The gateway; `/v1/responses` is appended."""

    key_file: Path | None = None
    """A file that holds the gateway's key. It is read again for each call."""

    key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key instead."""

    account: Name
    """The account that its calls are charged to."""

    order: int = Field(1, ge=0, le=1000, strict=True)
    """A lower one is called first. Routes of one order share the calls in proportion to their headroom."""

    spill_after: Annotated[timedelta, between("0s", "7d")] = timedelta(0)
    """Time that a request waits for the budget of lower orders before it comes here. It never waits for one that is
    out of order."""

    models: Annotated[dict[ModelName, ModelName] | None, Field(min_length=1)] = None
    """The models that it serves, each with its name there; without it, all models under their own names."""

    @field_validator("url")
    @classmethod
    def _url_is_http(cls, url: str) -> str:
        return gateway_url(url, key_goes_to="key_file or key_env")

    @field_validator("key_file", mode="before")
    @classmethod
    def _key_file_is_named(cls, file: object) -> object:
        if not isinstance(file, str) or not file.strip():
            raise ValueError("must be the path of a file")
        return file


class PriceTable(_Table):
    input: Annotated[float, Field(ge=0, le=10**6, strict=True)]
    """Input tokens."""

    cached_input: Annotated[float | None, Field(ge=0, le=10**6, strict=True)] = None
    """Input tokens that the gateway had in its cache; as `input`, where it is missing."""

    output: Annotated[float, Field(ge=0, le=10**6, strict=True)]
    """Output tokens, reasoning included."""

    def price(self) -> Price:
        cached = self.input if self.cached_input is None else self.cached_input
        return Price(input=self.input, cached_input=cached, output=self.output)


class Document(_Table):
    accounts: dict[Name, AccountTable] = Field(min_length=1)
    routes: dict[Name, RouteTable] = Field(min_length=1)
    models: dict[ModelName, PriceTable] = Field(default_factory=dict[str, PriceTable])

    def routing(self) -> Routing:
        """The same as values."""
        accounts = {
            name: Account(
                name=name,
                budget=table.budget(),
                models={model: limits.budget() for model, limits in table.models.items()},
            )
            for name, table in self.accounts.items()
        }
        prices = {model: table.price() for model, table in self.models.items()}
        return Routing(
            accounts=accounts, routes={name: _route(name, table) for name, table in self.routes.items()}, prices=prices
        )


def read_config_file(file: Path) -> Routing:
    """The file's accounts, routes and prices. Raises ValueError with one line for each mistake."""
    return parse(_text(file))


def parse(text: str) -> Routing:
    """The same for the text of a file."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _WHERE.search(str(error))
        place = f"line {at[1]}, column {at[2]}" if at else "its end"
        raise ValueError(f"{place}: is not TOML; look for a missing quote, bracket or equals sign") from None
    mistakes = list(_mistakes_of_values(raw)) + list(_mistakes_between_tables(raw))
    if mistakes:
        lines = lines_of(text)
        mistakes.sort(key=lambda mistake: line_of(mistake[0], lines))
        raise ValueError("\n".join(f"{place_of(path, lines)}: {said}" for path, said in dict.fromkeys(mistakes)))
    return Document.model_validate(raw).routing()


def _text(file: Path) -> str:
    try:
        if not file.is_file():
            raise ValueError("must name a file that exists")
        raw = file.read_bytes()
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from None
    if len(raw) > LONGEST_FILE:
        raise ValueError("must name a file of at most 1 MiB")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("must name a file that is UTF-8 text") from None


def _route(name: str, table: RouteTable) -> Route:
    return Route(
        name=name,
        url=table.url,
        account=table.account,
        key=KeySource(file=table.key_file, variable=table.key_env or ""),
        order=table.order,
        spill_after=table.spill_after,
        models=table.models or {},
    )


_Mistake = tuple[tuple[str, ...], str]
"""The path of a key in the file, and what is wrong there."""


def _mistakes_of_values(raw: Mapping[str, Any]) -> Iterator[_Mistake]:
    """Every value of the wrong form, every unknown and every missing key."""
    try:
        Document.model_validate(raw)
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            path = tuple(str(part) for part in problem["loc"] if part != "[key]")
            yield path, _said(path, cast("Mapping[str, Any]", problem))


def _said(path: tuple[str, ...], problem: Mapping[str, Any]) -> str:
    kind: str = problem["type"]
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    if problem["loc"][-1] == "[key]":
        of_model = "models" in path[:-1]
        return "is no name of a model" if of_model else "is no name; use letters, digits, - and _, at most 64"
    if path[-1] == "key_env":
        return "must be the name of an environment variable, not the key"
    return _WORDS.get(kind, "cannot be read").format_map(problem.get("ctx", {}))


_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "string_type": "must be text in quotes",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must be a name: letters, digits, - and _, at most 64",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "too_short": "must have at least one entry",
    "path_type": "must be the path of a file",
}


def _unknown(path: tuple[str, ...]) -> str:
    """The nearest known name; a key in the file would be a secret at rest."""
    name, known = path[-1], _known_beside(path)
    if "key_file" in known and name.lower() in _INLINE_KEYS:
        return "keys do not stand in this file; name key_file or key_env"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"no such key; did you mean {near[0]}?" if near else f"no such key; known are {', '.join(known)}"


def _known_beside(path: tuple[str, ...]) -> list[str]:
    """The keys of the table that holds this one."""
    tables: dict[tuple[str, int], type[BaseModel]] = {
        ("accounts", 3): AccountTable,
        ("accounts", 5): Limits,
        ("routes", 3): RouteTable,
        ("models", 3): PriceTable,
    }
    return list(tables.get((path[0], len(path)), Document).model_fields)


def _mistakes_between_tables(raw: Mapping[str, Any]) -> Iterator[_Mistake]:
    """Mistakes that single values cannot show: accounts that are not there, keys that are given twice or not at all."""
    accounts, routes = _tables(raw.get("accounts")), _tables(raw.get("routes"))
    for name, route in routes.items():
        path = ("routes", name)
        given = [key for key in ("key_file", "key_env") if key in route]
        if len(given) != 1:
            yield path, "give one of key_file and key_env" + (", not both" if given else "")
        account = route.get("account")
        if isinstance(account, str) and account not in accounts:
            near = difflib.get_close_matches(account, accounts, n=1, cutoff=0.6)
            yield (*path, "account"), "names no account of this file" + (f"; did you mean {near[0]}?" if near else "")


def _tables(value: object) -> dict[str, dict[str, Any]]:
    found = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return {name: cast("dict[str, Any]", table) for name, table in found.items() if isinstance(table, dict)}
