"""`python -m worker` is `responses-worker`."""

from worker.cli import main

main()
