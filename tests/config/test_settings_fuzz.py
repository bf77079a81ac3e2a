"""Any text is a setting or one clear line, and no line repeats a part of a secret."""

from collections.abc import Mapping
from typing import Final

from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from kombu.connection import Connection
from support.examples import examples
from support.settings_reader import VARIABLES, read

from worker.config.environment import WrongSettingsError
from worker.config.settings import Settings
from worker.gateway.upstream import Upstream

VALUES: Final = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40),
    st.text("0123456789.,=*smhd e+-_x", max_size=30),
    st.lists(st.sampled_from(
        ["redis://", "https://", "sentinel://", "unix://", ":", "@", "/", "?", "#", "[", "]", ";", "%", "1", "65536",
         "host", "..", "db=x", "master_name=m", "ssl_cert_reqs=none", "=", ",", "*", "batch", "7d", "\n", " ", "\u2100"]
    ), max_size=9).map("".join),
)  # fmt: skip


def started(settings: Settings) -> None:
    """Uses the addresses as a worker does before it takes work; raises for one that it cannot use."""
    Connection(settings.redis.broker_url)
    Upstream("default", settings.upstream_url, settings.api_key)


def outcome(environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """The repr of the settings, or the lines of complaint: whatever is shown of this environment."""
    try:
        settings = read(environment)
        if isinstance(settings, Settings):
            started(settings)
        return repr(settings), []
    except WrongSettingsError as error:
        return repr(error), str(error).split("\n")


@bounded(max_examples=examples(100), deadline=None)
@given(st.sampled_from(sorted(VARIABLES)), VALUES)
def test_any_text_is_a_setting_or_one_clear_line(name: str, text: str) -> None:
    """No other exception is ever raised."""
    _, lines = outcome({name: text})

    assert [line.partition(":")[0] for line in lines] in ([], [name])


SECRETS: Final = ("WORKER_REDIS_URL", "WORKER_UPSTREAM_URL", "WORKER_UPSTREAM_API_KEY", "SENTRY_DSN")
PIECES: Final = ("QZKX", "WVJY", "HQGZ", "XKPW")
BREAKS: Final = st.sampled_from(
    ["", "/", ":", "@", "?", "#", "[", "]", "%", ";", "&", "=", "\n", "\t", "\u2100", ":/", "@["]
)
FORMS: Final = (
    "{}", "redis://:{}@host/0", "redis://{}", "sentinel://u:{}@a;sentinel://b/0", "unix://{}", "https://{}@host/1",
    "https://host/?{}", "https://u:{}@host:x", "rediss://:{}@host/0?ssl_cert_reqs={}",
)  # fmt: skip


@bounded(max_examples=examples(100), deadline=None)
@given(st.sampled_from(SECRETS), st.lists(BREAKS, min_size=3, max_size=3), st.sampled_from(FORMS))
def test_no_part_of_a_secret_is_repeated(name: str, breaks: list[str], form: str) -> None:
    """In whatever way it breaks the form of the value; only a gateway's URL that is right is shown."""
    secret = "".join(piece + between for piece, between in zip(PIECES, [*breaks, ""], strict=True))
    shown, lines = outcome({name: form.replace("{}", secret)})

    assert [line.partition(":")[0] for line in lines] in ([], [name])
    if lines or name != "WORKER_UPSTREAM_URL":
        assert not [piece for piece in PIECES if piece.lower() in shown.lower()]
