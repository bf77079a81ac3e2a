"""The settings of one simulated gateway. The defaults make a gateway without limits and faults."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, Final, Literal, Self, cast, get_args

from worker.devtools.simulator.budget import AccountLimits, Limit
from worker.devtools.simulator.faults import FAULTS, Ending

Headers = Literal["openai", "retry-after", "none"]
RetryAfter = Literal["seconds+ms", "seconds", "ms", "date"]
Dialect = Literal["new-api", "openai"]

_REFUSALS: Final = tuple(name for name, fault in FAULTS.items() if fault.is_refusal)
_CHOICES: Final = {
    "headers": get_args(Headers),
    "retry_after": get_args(RetryAfter),
    "dialect": get_args(Dialect),
    "rate_limit_fault": _REFUSALS,
    "revoked_key_fault": _REFUSALS,
    "empty_wallet_fault": _REFUSALS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """The gateway's limits, manners and faults; raises ValueError naming the setting that is wrong."""

    requests_per_minute: int = 0
    """0, here and for the next two, means no limit."""
    tokens_per_minute: int = 0
    """A call counts its estimated input plus `max_output_tokens` when it is admitted."""
    max_in_flight: int = 0
    burst_s: float = 10.0
    """Seconds of refill that the continuous buckets hold."""
    requests_window_s: float = 0.0
    """Above 0: requests are counted in fixed windows of this length instead."""
    tokens_window_s: float = 0.0
    window_phase_s: float = 0.0
    """Windows begin at this offset from the simulator's start."""
    count_refused: bool = False
    """True: a 429 counts as a request too, as at OpenAI."""
    count_failed: bool = True
    """True: an admitted call keeps its requests and tokens although it ends with an error status."""
    default_output_tokens: int = 256
    """Reserved, and the longest answer, where the caller sets no `max_output_tokens`."""

    headers: Headers = "openai"
    """`openai`: x-ratelimit-* and Retry-After; `retry-after`: that alone; `none`: new-api's silence."""
    retry_after: RetryAfter = "seconds+ms"
    dialect: Dialect = "new-api"
    """The form of request ids: `X-Oneapi-Request-Id`, repeated in messages, or `x-request-id`."""
    rate_limit_fault: str = "429"
    """The fault that answers a call over a limit; `429` also names the limit, as OpenAI does."""

    latency_median_s: float = 0.0
    latency_sigma: float = 0.0
    """Of the logarithm: 0 is a constant latency, 0.5 a p95 of 2.3 medians."""
    collapse_above: int = 0
    """Above 0: with more calls in flight than this, each takes the square of the excess longer; with half as many
    again, it is answered 503."""
    refusal_latency_s: float = 0.0
    """Seconds until a 429 by a limit. Gateways that retry before they refuse are slow."""
    stream_deltas: int = 8
    """The most `response.output_text.delta` events of one answer."""
    seed: int = 0

    models: tuple[str, ...] = ("gpt-5.4-mini",)
    keys: tuple[str, ...] = field(default=(), repr=False)
    """The valid keys; empty: any key is."""
    revoked_keys: tuple[str, ...] = field(default=(), repr=False)
    empty_wallets: tuple[str, ...] = field(default=(), repr=False)
    """Keys of accounts without quota."""
    revoked_key_fault: str = "401"
    empty_wallet_fault: str = "quota"

    fault_rates: Mapping[str, float] = field(default_factory=dict[str, float])
    """Fault name to the probability, of 1, that an admitted call without a marker meets it."""
    call_log_size: int = 200_000
    """Calls that the log remembers; the statistics count them all."""
    accounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    """Accounts beside the one above: each has `keys` and budgets of its own, and every other setting in which it
    differs. A call belongs to the account that its key is one of. Changes are merged into what an account has."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: must be one of {', '.join(choices)}")
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{name}: must not be negative")
        self._check_fault_rates()
        self._check_accounts()

    def _check_accounts(self) -> None:
        """Makes each account's settings once: a wrong one raises here."""
        named = [key for name in self.accounts for key in self.account(name).keys]
        if len(set(named)) < len(named):
            raise ValueError("accounts: a key belongs to one account")

    def account(self, name: str) -> Self:
        """The settings of one of `accounts`."""
        own = self.accounts[name]
        if "accounts" in own or "call_log_size" in own or not own.get("keys"):
            raise ValueError(f"accounts.{name}: must have keys, and settings of one account")
        try:
            return replace(self, accounts={}, keys=(), revoked_keys=(), empty_wallets=()).changed(own)
        except ValueError as error:
            raise ValueError(f"accounts.{name}.{error}") from None

    def _check_fault_rates(self) -> None:
        faults = {name for name, fault in FAULTS.items() if fault.ending is not Ending.GOOD}
        if unknown := self.fault_rates.keys() - faults:
            raise ValueError(f"fault_rates: no such fault: {', '.join(sorted(unknown))}")
        if sum(self.fault_rates.values()) > 1 or any(rate < 0 for rate in self.fault_rates.values()):
            raise ValueError("fault_rates: must not be negative nor sum to more than 1")

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """This configuration with some settings replaced, as JSON gives them."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        if unknown := changes.keys() - known.keys():
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        typed = {name: _like(known[name], value, name) for name, value in changes.items() if name != "accounts"}
        if "accounts" in changes:
            typed["accounts"] = _merged(self.accounts, changes["accounts"])
        return replace(self, **typed)

    def public(self) -> dict[str, Any]:
        """The settings as JSON, keys replaced by their aliases."""
        accounts = {name: dict(own) | _aliases(own) for name, own in self.accounts.items()}
        return asdict(self) | _aliases(asdict(self)) | {"accounts": accounts}

    def limits(self) -> AccountLimits:
        """The budgets that these settings ask for."""
        return AccountLimits(
            requests=self._limit(self.requests_per_minute, self.requests_window_s),
            tokens=self._limit(self.tokens_per_minute, self.tokens_window_s),
            max_in_flight=self.max_in_flight,
        )

    def _limit(self, per_minute: int, window_s: float) -> Limit | None:
        if not per_minute:
            return None
        return Limit(per_minute=per_minute, burst_s=self.burst_s, window_s=window_s, phase_s=self.window_phase_s)


def _aliases(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The settings that hold keys, with aliases instead."""
    secret = settings.keys() & {"keys", "revoked_keys", "empty_wallets"}
    return {name: [key_alias(key) for key in settings[name]] for name in secret}


def _merged(accounts: Mapping[str, Mapping[str, Any]], changes: object) -> dict[str, Mapping[str, Any]]:
    """The accounts with these changes, each by its settings; None ends them all."""
    if changes is None:
        return {}
    if not isinstance(changes, dict) or not all(isinstance(own, dict) for own in changes.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # JSON
        raise ValueError("accounts: must be an object of objects")
    named = cast("dict[str, dict[str, Any]]", changes)
    return {**accounts} | {name: {**accounts.get(name, {}), **own} for name, own in named.items()}


def key_alias(key: str) -> str:
    """A name for a key. It differs for each key and does not reveal it."""
    return f"key-{sha256(key.encode()).hexdigest()[:8]}"


def _like(current: object, value: object, name: str) -> Any:
    """`value` as the type of the setting's current value; the types JSON can carry are all there are."""
    match current, value:
        case tuple(), list() | tuple():
            return tuple(map(str, cast("Iterable[object]", value)))
        case bool(), bool():
            return value
        case (int() | float(), bool()):
            pass
        case float(), int():
            return float(value)
        case dict(), dict():
            rates = cast("dict[str, object]", value)
            return {fault: _like(0.0, rate, f"{name}.{fault}") for fault, rate in rates.items()}
        case _ if isinstance(value, type(current)):
            return value
        case _:
            pass
    raise ValueError(f"{name}: must be of type {type(current).__name__}")
