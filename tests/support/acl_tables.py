"""The documentation of the Redis roles, generated from the roles themselves."""

from worker.operations.acl import ROLES


def acl() -> str:
    """The purpose of each role, and the commands that create it."""
    rows = [f"| `{role.name}` | {role.who} | {'; '.join(grant.purpose for grant in role.grants)} |" for role in ROLES]
    table = "\n".join(["| user | is | may |", "|---|---|---|", *rows])
    commands = "\n\n".join("\n".join(role.setuser("PASSWORD")) for role in ROLES)
    return f"{table}\n\n```text\n{commands}\n```"
