"""A real transparency log for tests of what the broker writes into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.tests.parties import FEDERATION, Parties, log_signer
from receipts.log import LogIdentity, LogKeys, TransparencyLog
from receipts.statements.fields import ManifestRef


@asynccontextmanager
async def opened(folder: Path, parties: Parties, domain: str) -> AsyncIterator[TransparencyLog]:
    """The domain's log in `folder`; opening it again finds what was committed."""
    origin = f"log.{domain}"
    log = await TransparencyLog.open(
        folder / f"{domain}.db",
        identity=LogIdentity(
            federation=FEDERATION,
            domain=domain,
            origin=origin,
            manifest=ManifestRef(version=1, digest=parties.trust.manifest_digests[domain].hex()),
        ),
        keys=LogKeys(
            receipt=parties.keys[domain]["receipt"],
            promise=parties.keys[domain]["promise"],
            note=log_signer(domain),
        ),
    )
    try:
        yield log
    finally:
        await log.close()
