"""`python -m worker.devtools.simulator --port 0 --config JSON`: prints the base URL as its one line, then serves."""

import argparse
import asyncio
import json
import sys

from worker.devtools.simulator.config import SimulatorConfig
from worker.devtools.simulator.server import serve_until_signalled


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; a wrong setting ends the process with status 2 and one line."""
    parser = argparse.ArgumentParser(prog="python -m worker.devtools.simulator")
    parser.add_argument("--port", type=int, default=0, help="0 is any free port")
    parser.add_argument("--config", type=json.loads, default={}, help="settings of SimulatorConfig, as JSON")
    options = parser.parse_args(arguments)
    try:
        config = SimulatorConfig().changed(dict(options.config))
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    asyncio.run(serve_until_signalled(config, port=options.port, ready=_announce))


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
