"""The way to Redis: one URL, scripts in batches, and the names of all keys."""
