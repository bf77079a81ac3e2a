"""One request's way from its claim to its one answer."""
