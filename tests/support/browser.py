"""A headless Chromium: Debian's own, installed where root may and it is missing (`python -m support.browser`)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

SCREENSHOTS: Final = bool(os.environ.get("SCREENSHOTS"))
Open = Callable[..., Any]
"""Opens the dashboard: a page of playwright."""
_APT: Final = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "--quiet=2")
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The path of the program; None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def main() -> None:
    if chromium() or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    try:
        subprocess.run([*_APT, "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*_APT, "install", "--yes", "--no-install-recommends", "chromium"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"chromium cannot be had here, the page's tests will be skipped: {error}\n")


if __name__ == "__main__":
    main()
