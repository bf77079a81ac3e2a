"""Every setting, read from the environment once."""
