"""Every shape in which a text may lie around: as it is, escaped, encoded, at any alignment of base64."""

from __future__ import annotations

import base64
import json
import urllib.parse

MARGIN = 3  # characters at each end of a base64 text that depend on its neighbours


def forms(text: str) -> list[bytes]:
    """What to search for. The text should be long and unique, so that no form is found by chance."""
    raw = text.encode("utf-8")
    found = {
        raw,
        raw.hex().encode(),
        raw.hex().upper().encode(),
        json.dumps(text)[1:-1].encode(),
        json.dumps(json.dumps(text))[1:-1].encode(),
        urllib.parse.quote(text).encode(),
        raw[::-1],
    }
    found |= {text.encode(encoding) for encoding in ("utf-16-le", "utf-16-be")}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * shift + raw).rstrip(b"=")
            found.add(encoded[shift and MARGIN + 1 :][:-MARGIN])
    return sorted(found)


def search(data: bytes, text: str) -> list[bytes]:
    """The forms of `text` that stand in `data`."""
    return [form for form in forms(text) if form in data]
