"""Real parts that tests share: worker processes, servers, Redis, and readers of their output."""
