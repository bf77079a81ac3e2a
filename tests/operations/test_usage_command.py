"""`usage` reads the accounts with an operator's rights, and shows names of strangers as text."""

import json
from typing import Any

from support.command_line import called
from support.redis_users import url_of

from worker.operations.acl import OPERATOR
from worker.operations.usage import DAY_MS


def test_the_command_shows_names_of_strangers_as_text(users: Any, redis_url: str) -> None:
    seconds, _ = users.time()
    hostile = "\x1b[2J[red]x"
    users.hset(
        f"responses:usage:{seconds * 1000 // DAY_MS}",
        mapping={f"{hostile}\n{hostile}": "3 1 1200 4 5 2500000", "acme\n": "1 0 1 0 1 0"},
    )
    url = url_of(OPERATOR, redis_url)

    shown = called("usage", WORKER_REDIS_URL=url)
    assert (shown.code, "\x1b" in shown.out) == (0, False)
    assert shown.out.count("\\x1b[2J[red]x") == 2
    assert "1,201" in shown.out.splitlines()[-1]
    assert "0.0025" in shown.out.splitlines()[-1]
    asked = called("usage", "--tenant", hostile, "--since", "1h", "--json", WORKER_REDIS_URL=url)
    (row,) = [json.loads(line) for line in asked.out.splitlines()]
    assert (row["tenant"], row["requests"], row["failed"], row["cost_usd"]) == (hostile, 3, 1, 0.0025)
    assert "\x1b" not in asked.out
    assert called("usage", "--tenant", "nobody", WORKER_REDIS_URL=url).out == "nothing was published\n"
    assert called("usage", "--since", "soon", WORKER_REDIS_URL=url).code == 2
