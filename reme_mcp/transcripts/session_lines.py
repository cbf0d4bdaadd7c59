"""The lines of a session file, as far as they can be read.

In:  the bytes of a file of JSON Lines that a client may be writing still, or was stopped in.
Out: its objects, in order, and how much was no JSON.
Does not know: what is in the objects.

A client that is killed in a write leaves half a line, and goes on behind it without a line break. Whatever whole object
stands at the end of such a line is taken.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator

from reme_mcp.errors import InvalidInput

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Places in a torn line at which an object is looked for.
MAX_PLACES = 1_000
_DECODER = json.JSONDecoder()


def entries(data: bytes, skipped: Counter[str]) -> Iterator[dict[str, object]]:
    """Yield the objects of a session file.

    Args:
        data: Of the file.
        skipped: Gets the number of lines that hold none.

    Raises:
        InvalidInput: The file is compressed.
    """
    for magic, (name, tool) in _COMPRESSED.items():
        if data.startswith(magic):
            raise InvalidInput(f"the file is compressed ({name}); unpack it first, for example with {tool}")
    text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig", errors="replace")
    # Only \n ends a line; a file system that lost power leaves zeros.
    for line in text.replace("\0", "").split("\n"):
        if not line.strip():
            continue
        values = _values(line.strip())
        if not values:
            skipped["line that is no JSON"] += 1
        for value in values:
            if isinstance(value, dict):
                yield value
            else:
                skipped["line that is no object"] += 1


def _values(line: str) -> list[object]:
    try:
        return [json.loads(line)]
    except (ValueError, RecursionError):
        pass
    # An object inside a torn one is no entry: it must be followed by the end of the line or by the next entry.
    place = 0
    for _ in range(MAX_PLACES):
        place = line.find('{"', place)
        if place < 0:
            break
        values: list[object] = []
        at = place
        try:
            while at < len(line) and line[at] == "{":
                value, at = _DECODER.raw_decode(line, at)
                values.append(value)
                at += len(line[at:]) - len(line[at:].lstrip())
        except (ValueError, RecursionError):
            pass
        if values and (at == len(line) or line[at] == "{"):
            return values
        place += 1
    return []
