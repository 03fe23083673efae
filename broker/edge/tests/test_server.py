"""Listening: ports, certificates, and addresses that cannot be had."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.edge import chat
from broker.edge.tests.scripted import BODY, KEY, serving
from broker.edge.tests.test_raw_http import CHAT, raw
from broker.starting.config import Listen, ServerCertificate
from schemas.errors import ConfigurationError


def certificate(folder: Path) -> ServerCertificate:
    """A self-signed certificate for the loopback address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    private.chmod(0o600)
    return ServerCertificate(certificate=folder / "chain.pem", key=private)


async def test_https_where_a_certificate_is_configured(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(tls.certificate))
    async with serving(listen=Listen(tls=tls, port=0)) as edge:
        assert edge.base_url.startswith("https://127.0.0.1:")
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(verify=trusted, headers=headers, trust_env=False) as http:
            answer = await http.post(f"{edge.base_url}/chat/completions", json=BODY)
    assert answer.status_code == 200


async def test_a_certificate_without_its_key_is_a_configuration_error(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    tls.key.write_text("not a key")
    with pytest.raises(ConfigurationError, match=r"listen\.tls"):
        async with serving(listen=Listen(tls=tls, port=0)):
            pass


async def test_the_port_is_written_down_while_the_broker_listens(tmp_path: Path) -> None:
    place = tmp_path / "run" / "port"
    async with serving(listen=Listen(tls="any", port=0, port_file=place)) as edge:
        assert place.read_text() == f"{edge.server.port}\n"
    assert not place.exists()


async def test_an_address_that_is_taken_is_a_configuration_error() -> None:
    async with serving() as edge:
        with pytest.raises(ConfigurationError, match=str(edge.server.port)):
            async with serving(listen=Listen(tls="any", port=edge.server.port)):
                pass


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "BODY_S", 0.02)
    async with serving() as edge:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 10\r\n\r\n{{"
        )
        answer = await raw(edge, head.encode())
        assert edge.gate.queued == 0
    assert answer.startswith(b"HTTP/1.1 504")
    assert b"request.body_slow" in answer
