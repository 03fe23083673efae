"""Reading a guest's own log in JSON."""

from __future__ import annotations

from typing import Any

import pytest

from attestation.tdx.log.runtime import MAX_NAME, read_runtime
from attestation.tdx.log.tests.logs import dstack, runtime
from schemas.errors import Refused


def test_an_event_is_read() -> None:
    (event,) = read_runtime(dstack(runtime("app-id", b"\1\2")))
    assert (event.register, event.name, event.data, event.binding) == (3, "app-id", b"\1\2", "bound")


def test_a_short_digest_is_padded_and_an_absent_one_stays_absent() -> None:
    short, absent = read_runtime(dstack(runtime("a", b"", digest="aa" * 32), runtime("a", b"", digest="")))
    assert short.digest == b"\xaa" * 32 + bytes(16)
    assert absent.digest is None
    assert absent.binding == "digest only"


@pytest.mark.parametrize(
    "change",
    [
        {"imr": 4}, {"imr": -1}, {"imr": True}, {"imr": "3"}, {"event_type": 2**32}, {"event_type": None},
        {"digest": "aa" * 49}, {"digest": "a"}, {"digest": "zz"}, {"digest": 5}, {"event": 5},
        {"event": "x" * (MAX_NAME + 1)}, {"event_payload": "0"}, {"event_payload": ["00"]},
    ],
)  # fmt: skip
def test_malformed_events(change: dict[str, Any]) -> None:
    with pytest.raises(Refused) as error:
        read_runtime(dstack(runtime("app-id", b"\1", **change)))
    assert error.value.code == "tdx.event_log_malformed"


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b"[", b'[{"imr":3,"imr":3}]', b"\xff", b"[" * 10_000, b"[" + b"{}," * 5000 + b"{}]"],
    ids=["nothing", "object", "number", "open", "twice", "no text", "deep", "many"],
)
def test_malformed_logs(data: bytes) -> None:
    with pytest.raises(Refused) as error:
        read_runtime(data)
    assert error.value.code == "tdx.event_log_malformed"
