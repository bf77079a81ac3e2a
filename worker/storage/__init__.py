"""How Redis is reached: one URL, scripts in batches, and the names of all keys."""
