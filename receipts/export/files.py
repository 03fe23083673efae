"""Writing an export: for each receipt a bundle and its artifact, one trust configuration, and the command;
or its COSE form.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from receipts.bundle import Bundle
from receipts.export import cose
from receipts.export.authority import Authority
from receipts.export.cose import Signers
from receipts.export.sigstore import Exported, export
from receipts.statements.receipt import MODELS, Receipt
from receipts.statements.statement import commitment_file, parse_receipt, receipt_kind
from receipts.verify.pinned import PinnedTrust
from schemas import envelope
from schemas.errors import ConfigurationError, Refused

TRUST: Final = "trust-config.json"


def write(
    bundle: Bundle, domain: str, held: PinnedTrust, authority: Authority, folder: Path, *, at: datetime
) -> list[str]:
    """Export the domain's own receipts of a bundle; returns the commands that verify them.

    Raises `Refused` (`export.nothing`) when there is none, `ConfigurationError` for the folder.
    """
    commands: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for body, data in _own(bundle, domain):
            made = _signed_by(data, domain, held, authority, at)
            name = body.receipt_id
            (folder / f"{name}.sigstore.json").write_bytes(made.bundle)
            (folder / f"{name}.commitment").write_bytes(commitment_file(body.request.commitment))
            (folder / TRUST).write_bytes(made.trust)
            commands.append(command(folder, name, made))
    except OSError as error:
        raise ConfigurationError("export.folder", f"{folder}: {error.strerror}") from None
    if not commands:
        raise Refused("export.nothing", f"no receipt of {domain} in this bundle")
    return commands


def write_cose(bundle: Bundle, domain: str, held: PinnedTrust, signers: Signers, folder: Path) -> list[Path]:
    """Write the COSE form of the domain's own receipts of a bundle; returns the files.

    Raises `Refused` (`export.nothing`, `export.no_proof`), `ConfigurationError` for the folder.
    """
    registered = [each.key for each in held.registered("receipt") if each.domain == domain]
    if signers.receipt.public not in registered:
        raise Refused("export.receipt_key", f"not a registered receipt key of {domain}")
    found: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for body, data in _own(bundle, domain):
            text = bundle.proofs.get(envelope.read(data).digest)
            if text is None:
                raise Refused("export.no_proof", f"{body.receipt_id} has no proof yet: wait for a checkpoint")
            made = cose.export(data, text, signers, held.log_keys(domain, body.log.origin))
            path = folder / f"{body.receipt_id}.cose"
            path.write_bytes(made)
            found.append(path)
    except OSError as error:
        raise ConfigurationError("export.folder", f"{folder}: {error.strerror}") from None
    if not found:
        raise Refused("export.nothing", f"no receipt of {domain} in this bundle")
    return found


def _own(bundle: Bundle, domain: str) -> Iterator[tuple[Receipt, bytes]]:
    """The domain's own receipts in a bundle, with their envelopes."""
    for data in bundle.envelopes.values():
        payload = envelope.read(data).payload
        model = MODELS.get(receipt_kind(payload))
        body = parse_receipt(payload, model) if model else None
        if body is not None and body.issuer == domain:
            yield body, data


def _signed_by(data: bytes, domain: str, held: PinnedTrust, authority: Authority, at: datetime) -> Exported:
    """Under whichever of the domain's registered receipt keys made the signature. Raises `Refused`."""
    keys = {each.entry.thumbprint: each.key for each in held.registered("receipt") if each.domain == domain}
    verified = envelope.verify(data, envelope.STATEMENT, keys.values())
    return export(data, keys[verified.signer], authority, at=at)


def command(folder: Path, name: str, made: Exported) -> str:
    """What anyone with the stock tool runs, offline."""
    here = folder.absolute()  # a name may begin with a dash
    words = ["sigstore", "--trust-config", str(here / TRUST), "verify", "identity", "--offline"]
    words += ["--bundle", f"{here / name}.sigstore.json", "--cert-identity", made.identity]
    words += ["--cert-oidc-issuer", made.issuer, f"{here / name}.commitment"]
    return shlex.join(words)
