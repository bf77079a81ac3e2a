"""Requests may name the models of WORKER_MODELS and of the routes."""

from pathlib import Path

import pytest
from support.settings_reader import read

from api_contracts import ContractViolation
from worker.config.environment import WrongSettingsError
from worker.config.settings import Settings


def settings_of(tmp_path: Path, *routes: str, **environment: str) -> Settings:
    """With a file of a route for each table of models; `{}` is a route without one."""
    lines = ["[accounts.main]"]
    for number, table in enumerate(routes):
        lines += [f"[routes.r{number}]", 'url = "https://a"', 'account = "main"', 'key_env = "KEY"']
        lines += [f"models = {table}"] if table != "{}" else []
    file = tmp_path / "routes.toml"
    file.write_text("\n".join(lines))
    settings = read(environment | {"WORKER_CONFIG_FILE": str(file)})
    assert isinstance(settings, Settings)
    return settings


@pytest.mark.parametrize(
    ("routes", "variables", "served"),
    [
        (["{}"], {}, ["gpt-5.4-mini"]),
        (['{ "m" = "m" }'], {}, ["m"]),
        (['{ "m" = "x", "n" = "n" }', '{ "o" = "o", "n" = "y" }'], {}, ["m", "n", "o"]),
        (['{ "m" = "m" }', "{}"], {}, ["gpt-5.4-mini", "m"]),
        (['{ "m" = "m", "n" = "n" }'], {"WORKER_MODELS": "n"}, ["n", "m"]),
        (['{ "m" = "m" }', "{}"], {"WORKER_MODELS": "n,m"}, ["n", "m"]),
    ],
)
def test_requests_may_name_the_models_of_routes(
    tmp_path: Path, routes: list[str], variables: dict[str, str], served: list[str]
) -> None:
    settings = settings_of(tmp_path, *routes, **variables)

    assert list(settings.served) == served
    for model in served:
        settings.envelope.parse({"body": {"model": model, "input": [{"role": "user", "content": "Hello!"}]}})
    with pytest.raises(ContractViolation, match="model"):
        settings.envelope.parse({"body": {"model": "none", "input": [{"role": "user", "content": "Hello!"}]}})


def test_a_model_that_no_route_serves_is_a_mistake(tmp_path: Path) -> None:
    """Its requests would wait until their deadline."""
    with pytest.raises(WrongSettingsError) as caught:
        settings_of(tmp_path, '{ "m" = "m" }', WORKER_MODELS="m,lost")

    assert str(caught.value) == "WORKER_MODELS: no route of WORKER_CONFIG_FILE serves lost"
