"""A configuration file is right, or each mistake in it is one line with its place, and no line repeats a value."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.settings_reader import read

from worker.config.config_file import parse
from worker.config.environment import WrongSettingsError
from worker.config.key_places import check_keys
from worker.config.routing import DEFAULT, Budget, Price
from worker.config.settings import Settings

SECRET: Final = "sk-live-9Q7ZK9XW2V"

WHOLE: Final = """
[accounts.main]                       # a comment
requests_per_minute = 600
tokens_per_minute = 200_000
max_in_flight = 0
[accounts.main.models."gpt-5.4-mini"]
requests_per_minute = 300
[accounts.spare]
requests_per_minute = 120

[routes.primary]
url = "https://www.anyfast.ai/v1"
key_file = "/run/secrets/gateway/primary"
account = "main"
order = 1
[routes.backup]
url = "https://gateway.example"
key_env = "BACKUP_KEY"
account = "spare"
order = 2
spill_after = "5s"
models = { "gpt-5.4-mini" = "openai/gpt-5.4-mini" }

[models."gpt-5.4-mini"]
input = 0.25
cached_input = 0.025
output = 2
"""

SMALL: Final = """
[accounts.main]
[routes.primary]
url = "https://gateway.example"
key_env = "KEY"
account = "main"
"""


def complaints(text: str) -> list[str]:
    with pytest.raises(ValueError, match=":") as caught:
        parse(text)
    assert SECRET not in str(caught.value)
    return str(caught.value).splitlines()


def settings_of(file: Path, **environment: str) -> Settings:
    settings = read(environment | {"WORKER_CONFIG_FILE": str(file)})
    assert isinstance(settings, Settings)
    return settings


def test_everything_in_a_file_is_read() -> None:
    routing = parse(WHOLE)

    main, (primary, backup) = routing.accounts["main"], routing.routes.values()
    assert main.budget == Budget(requests_per_minute=600, tokens_per_minute=200_000)
    assert main.models == {"gpt-5.4-mini": Budget(requests_per_minute=300)}
    assert (primary.url, primary.account, primary.order) == ("https://www.anyfast.ai", "main", 1)
    assert (primary.spill_after, primary.models) == (timedelta(0), {})
    assert (backup.spill_after, backup.key.variable) == (timedelta(seconds=5), "BACKUP_KEY")
    assert routing.prices == {"gpt-5.4-mini": Price(input=0.25, cached_input=0.025, output=2)}
    assert [route.name for route in routing.serving("gpt-5.4-mini")] == ["primary", "backup"]
    assert [route.name for route in routing.serving("another")] == ["primary"]


def test_a_cached_token_without_a_price_costs_what_others_cost() -> None:
    routing = parse(f'{SMALL}[models."m"]\ninput = 1.5\noutput = 2')

    assert routing.prices["m"].cached_input == 1.5


def test_without_a_file_the_environment_makes_one_account_and_one_route() -> None:
    settings = read({"WORKER_UPSTREAM_API_KEY": SECRET, "WORKER_REQUESTS_PER_MINUTE": "60"})

    assert isinstance(settings, Settings)
    routing = settings.routing
    assert routing.accounts.keys() == routing.routes.keys() == {DEFAULT}
    assert routing.accounts[DEFAULT].budget == Budget(requests_per_minute=60)
    assert routing.routes[DEFAULT].key.read() == SECRET
    assert SECRET not in repr(routing)


WRONG: Final = [
    ("[acounts.main]", "line 7, acounts: no such key; did you mean accounts?"),
    ("[accounts.main2]\nrequests_per_minit = 1", "requests_per_minit: no such key; did you mean requests_per_minute?"),
    ("[accounts.main2]\nburst = 1", "line 8, accounts.main2.burst: no such key; known are requests_per_minute, "),
    (f'[accounts.main2]\ntokens_per_minute = "{SECRET}"', "must be a whole number, without quotes"),
    ("[accounts.main2]\ntokens_per_minute = 1.5", "must be a whole number, without quotes"),
    ("[accounts.main2]\ntokens_per_minute = true", "must be a whole number, without quotes"),
    ("[accounts.main2]\nmax_in_flight = -1", "accounts.main2.max_in_flight: must be at least 0"),
    ("[accounts.main2]\nrequests_per_minute = 1000000001", "must be at most 1000000000"),
    ('[accounts."a b"]', 'line 7, accounts."a b": is no name; use letters, digits, - and _, at most 64'),
    ('[accounts.a.models."m"]\nrpm = 1', "line 8, accounts.a.models.m.rpm: no such key"),
    ('[accounts.a.models." "]', "is no name of a model"),
    ("[accounts.a]\nmodels = 3", "line 8, accounts.a.models: must be a table"),
    ('[models."m"]\ninput = 1', "line 7, models.m.output: is missing"),
    ('[models."m"]\ninput = "1"\noutput = 1', "line 8, models.m.input: must be a number, without quotes"),
    ('[models."m"]\ninput = 1\noutput = -1', "line 9, models.m.output: must be at least 0"),
    ('[models."m"]\ninput = nan\noutput = 1', "models.m.input: must be"),
]  # fmt: skip


@pytest.mark.parametrize(("added", "said"), WRONG)
def test_a_mistake_is_one_line_with_its_place(added: str, said: str) -> None:
    (line,) = complaints(SMALL + added)

    assert said in line


WRONG_ROUTES: Final = [
    (f'url = "https://user:{SECRET}@host"', "the key goes into key_file or key_env"),
    (f'url = "ftp://{SECRET}"', "must be http:// or https:// with a host"),
    ("url = 3", "must be text in quotes"),
    (f'api_key = "{SECRET}"', "keys do not stand in this file; name key_file or key_env"),
    (f'key_env = "{SECRET}"', "must be the name of an environment variable, not the key"),
    ("key_file = 3", "must be the path of a file"),
    ('key_file = " "', "must be the path of a file"),
    ('account = "mian"', "names no account of this file; did you mean main?"),
    ('account = "elsewhere"', "names no account of this file"),
    ('order = "first"', "must be a whole number, without quotes"),
    ("order = 1001", "must be at most 1000"),
    ('spill_after = "5 sheep"', "must be a duration such as 30s"),
    ('spill_after = "8d"', "must be a duration from 0s to 7d"),
    ("models = {}", "must have at least one entry"),
    ('models = { "m" = 3 }', "must be text in quotes"),
    ('models = ["m"]', "must be a table"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG_ROUTES)
def test_a_mistake_in_a_route_is_one_line_with_its_place(wrong: str, said: str) -> None:
    right = {"url": '"https://gateway.example"', "key_env": '"KEY"', "account": '"main"'}
    name = wrong.partition(" ")[0]
    if name == "key_file":
        del right["key_env"]
    lines = [f"{key} = {value}" for key, value in right.items() if key != name]

    (line,) = complaints("\n".join([SMALL, "[routes.second]", *lines, wrong]))

    assert line.startswith(f"line {9 + len(lines)}, routes.second.{name}")
    assert said in line


def test_a_key_is_named_once() -> None:
    neither = SMALL.replace('key_env = "KEY"\n', "")

    assert complaints(neither) == ["line 3, routes.primary: give one of key_file and key_env"]
    assert complaints(f'{SMALL}key_file = "x"') == [
        "line 3, routes.primary: give one of key_file and key_env, not both"
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = '[routes.primary]\nurl = 3\nacount = "main"\n[accounts.main]\nmax_in_flight = -1\n[models]\nx = 3'

    assert [line.partition(":")[0] for line in complaints(text)] == [
        "line 1, routes.primary.account",
        "line 1, routes.primary",
        "line 2, routes.primary.url",
        "line 3, routes.primary.acount",
        "line 5, accounts.main.max_in_flight",
        "line 7, models.x",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'[accounts.main\nkey = "{SECRET}"', "line 1, column 15: is not TOML"),
        (f"a = {SECRET}", "line 1, column 5: is not TOML"),
        ("", "accounts: is missing"),
        ("[accounts]\n[routes]", "line 1, accounts: must have at least one entry"),
    ],
)
def test_what_is_no_configuration_says_where(text: str, said: str) -> None:
    assert complaints(text)[0].startswith(said)


@given(st.text(max_size=200) | st.text("[]{}=\"'.,abc123 \n#_-", max_size=200))
def test_no_text_is_worse_than_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@given(
    st.sampled_from(WHOLE.splitlines()), st.sampled_from(["3", "[]", "{}", '"x"', "true", "1979-05-27", "-1", "inf"])
)
def test_a_wrong_value_anywhere_is_told_with_its_line(line: str, value: str) -> None:
    """Or it happens to be right."""
    if "=" not in line:
        return
    key = line.partition("=")[0]
    text = WHOLE.replace(line, f"{key}= {value}", 1)
    try:
        parse(text)
    except ValueError as error:
        for mistake in str(error).splitlines():  # each of several, where there are any
            assert mistake.startswith("line ")


class TestSettings:
    """Mistakes of the file stand beside those of variables; keys are looked for when a worker starts."""

    def complaint(self, environment: Mapping[str, str]) -> list[str]:
        with pytest.raises(WrongSettingsError) as caught:
            read(environment)
        return str(caught.value).splitlines()

    def test_mistakes_of_file_and_variables_are_told_together(self, tmp_path: Path) -> None:
        file = tmp_path / "routes.toml"
        file.write_text(SMALL.replace("main", "mian", 1) + "order = -1")

        assert self.complaint({"WORKER_CONFIG_FILE": str(file), "WORKER_CONCURRENCY": "0"}) == [
            "WORKER_CONFIG_FILE: line 6, routes.primary.account: names no account of this file; did you mean mian?",
            "WORKER_CONFIG_FILE: line 7, routes.primary.order: must be at least 0",
            "WORKER_CONCURRENCY: must be a whole number from 1 to 10000",
        ]

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert self.complaint({"WORKER_CONFIG_FILE": str(tmp_path / "none")}) == [
            "WORKER_CONFIG_FILE: must name a file that exists"
        ]

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"\xff\xfe" + SECRET.encode())

        assert self.complaint({"WORKER_CONFIG_FILE": str(tmp_path / "file")}) == [
            "WORKER_CONFIG_FILE: must name a file that is UTF-8 text"
        ]

    def test_keys_are_where_the_file_says_when_a_worker_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "routes.toml"
        file.write_text(f'{SMALL}[routes.second]\nurl = "https://b"\naccount = "main"\nkey_file = "{tmp_path}/key"\n')
        monkeypatch.delenv("KEY", raising=False)
        settings = settings_of(file)

        with pytest.raises(WrongSettingsError) as caught:
            check_keys(settings)

        assert str(caught.value).splitlines() == [
            "WORKER_CONFIG_FILE: routes.primary.key_env: names an environment variable that is not set",
            "WORKER_CONFIG_FILE: routes.second.key_file: must name a file that exists",
        ]
        monkeypatch.setenv("KEY", SECRET)
        (tmp_path / "key").write_text("sk-1\n")
        check_keys(settings)
        assert [route.key.read() for route in settings.routing.routes.values()] == [SECRET, "sk-1"]
        (tmp_path / "key").write_text("sk-2\n")
        assert settings.routing.routes["second"].key.read() == "sk-2"
