"""Addresses of runbook pages."""

from typing import Final

PAGES: Final = "docs/runbook"
"""The folder of the pages in the repository."""


def link(name: str, base_url: str) -> str:
    """The address of an entry's page: `<base_url>/<name>/`, or the page's file without a base."""
    return f"{base_url.rstrip('/')}/{name}/" if base_url else f"{PAGES}/{name}.md"
