"""Answers as bytes, built after public reports: each file is what one connection carries before it closes.

`index.json` says what must become of each: the outcome and its text, or the error's code; and how many calls
a request of five attempts makes of a gateway that never answers otherwise (null: the upstream pauses).
"""

import json
from pathlib import Path
from typing import Final, NamedTuple

CORPUS: Final = Path(__file__).parent.parent / "data" / "wire"


class Specimen(NamedTuple):
    name: str
    data: bytes
    outcome: str
    calls: int | None
    source: str
    code: str | None
    text: str | None


def specimens() -> list[Specimen]:
    """The whole corpus, in the order of its index."""
    return [
        Specimen(
            name=entry["name"],
            data=(CORPUS / f"{entry['name']}.http").read_bytes(),
            outcome=entry["outcome"],
            calls=entry["calls"],
            source=entry["source"],
            code=entry.get("code"),
            text=entry.get("text"),
        )
        for entry in json.loads((CORPUS / "index.json").read_text(encoding="utf-8"))
    ]
