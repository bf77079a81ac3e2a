# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker dashboard`."""

import sys
from typing import Annotated

import typer

from worker.commands.terminal import WRONG, ended, settings


def dashboard(
    *,
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 8090,
) -> None:
    """Show the fleet as a live page: lanes, rate, latency, failures, workers, dead letters.

    WORKER_DASHBOARD_TOKEN or WORKER_DASHBOARD_TOKEN_FILE opens it. Without one, a token is made for this run.
    """
    checked = settings()
    try:
        from worker.dashboard.access import Door, is_loopback
        from worker.dashboard.server import create_app, new_token
        from worker.dashboard.serving import listening, serve
    except ModuleNotFoundError:
        raise ended("dashboard: needs the extra: pip install 'responses-worker[dashboard]'", WRONG) from None
    from worker.dashboard.watch import FleetWatch

    try:
        given = checked.dashboard_key()
    except ValueError as error:
        raise ended(f"WORKER_DASHBOARD_TOKEN_FILE: {error}", WRONG) from None
    if not given and not is_loopback(host):
        raise ended(f"--host {host}: others can reach it: set WORKER_DASHBOARD_TOKEN or _FILE", WRONG)
    try:
        socket = listening(host, port)
    except OSError as error:
        raise ended(f"--host {host} --port {port}: {error.strerror}; --port 0 takes any free one", WRONG) from None
    token = given or new_token()
    address = f"http://{host}:{socket.getsockname()[1]}/"
    sys.stdout.write(f"{address}\n" if given else f"{address}#token={token}\n")
    sys.stdout.flush()
    serve(create_app(FleetWatch(checked), Door(token)), socket)
