"""Whether a kubelet would send a worker's container traffic, if there were any."""

import json
from http import HTTPStatus
from http.client import HTTPConnection

from engine import Container


def is_ready(container: Container) -> bool:
    """The answer of /readyz, on the port that the log names."""
    opened = [json.loads(line) for line in container.log.splitlines() if '"probes.opened"' in line]
    if not opened:
        return False
    connection = HTTPConnection("127.0.0.1", opened[0]["port"], timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
