"""The fleet as a page: one snapshot every two seconds, live in a browser, behind a token. It shows no content."""
