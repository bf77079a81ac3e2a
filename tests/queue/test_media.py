"""Images cost tiles and not bytes."""

import base64
import json
import struct
from typing import Any, Final

import pytest
from support.processor_parts import message

from api_contracts import contract
from worker.queue.media import NO_MEDIA, media_of, tiles
from worker.queue.messages import Message, decode

Json = dict[str, Any]

PNG: Final = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 2048, 4096)
GIF: Final = b"GIF89a" + struct.pack("<HH", 100, 50)
JPEG: Final = (
    b"\xff\xd8\xff\xe1"
    + struct.pack(">H", 5000)
    + b"x" * 4998
    + b"\xff\xc0\x00\x11\x08"
    + struct.pack(">HH", 600, 1200)
)


def image(content: bytes, **more: Any) -> Json:
    url = "data:image/any;base64," + base64.b64encode(content).decode()
    return {"type": "input_image", "image_url": url, **more}


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1024, 1024, 4), (2048, 4096, 6), (512, 512, 1), (513, 1, 2), (1, 1, 1), (0, 0, 1), (768, 20_000, 4)],
)
def test_tiles_are_counted_after_scaling(width: int, height: int, expected: int) -> None:
    """The first two are the examples of OpenAI's guide."""
    assert tiles(width, height) == expected


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (image(PNG + b"x" * 100_000), 85 + 6 * 170),
        (image(GIF), 85 + 170),
        (image(JPEG), 85 + 170 * 6),
        (image(PNG, detail="low"), 85),
        (image(b"nothing known"), 765),
        (image(JPEG[:40]), 765),
        ({"type": "input_image", "image_url": "data:image/png;base64,?"}, 765),
        ({"type": "input_image", "image_url": "https://example.com/a.png"}, 765),
        ({"type": "input_image", "file_id": "file-1"}, 765),
        ({"type": "input_file", "file_data": "x" * 3200}, 100),
        ({"type": "input_file", "file_id": "file-1"}, 0),
        ({"type": "input_text", "text": "data:image/png;base64,"}, 0),
    ],
)
def test_each_part_has_its_tokens(part: Json, tokens: int) -> None:
    asked = [{"role": "user", "content": [part]}, {"type": "function_call_output", "output": [part]}]

    found = media_of(asked)

    assert found.tokens == 2 * tokens
    assert found.size == 2 * len(
        part.get("file_data") or (part.get("image_url", "") if "data:" in part.get("image_url", "") else "")
    )


def test_a_message_knows_its_media_in_the_profile_that_has_them() -> None:
    body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": [image(PNG + b"x" * 50_000)]}]}
    plain = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": json.dumps(image(PNG))}]}

    with_image = decode(message({"body": body}), max_body=10**6, contract=contract("openai"))
    without = decode(message({"body": plain}), max_body=10**6)

    assert isinstance(with_image, Message)
    assert isinstance(without, Message)
    assert with_image.media.tokens == 85 + 6 * 170
    assert len(with_image.body) - with_image.media.size < 300
    assert without.media == NO_MEDIA
