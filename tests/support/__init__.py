"""Real parts that tests share: processes, servers, Redis and readers of their output."""
