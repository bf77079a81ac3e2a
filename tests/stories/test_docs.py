"""The README says what the code does."""

import re

from support.tables import README, TABLES, rendered


def test_generated_tables_are_current() -> None:
    """`make docs` rewrites them."""
    text = README.read_text(encoding="utf-8")

    assert rendered(text) == text


def test_every_table_has_its_place() -> None:
    """A table nobody sees documents nothing."""
    text = README.read_text(encoding="utf-8")

    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(TABLES)
