"""A whole bus in a folder: configuration, certificate and every login, made once at founding.

    <folder>/server.conf  server.key (0600)  server.pem  ca.pem  server.log
    <folder>/users/system.nk  users/<domain>/<user>.nk (0600)

A crash while founding leaves a folder that a second founding refuses: remove it and found again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from federation.accounts import (
    RESPONSE_THRESHOLD_S,
    BusPlan,
    BusUser,
    ServerSettings,
    make_plan,
    render,
)
from federation.connection import BusSettings
from federation.embedded.certificate import VALID_DAYS, make_certificate
from federation.server import EmbeddedServer
from schemas.errors import ConfigurationError
from schemas.keys import write_secret


@dataclass(frozen=True, slots=True)
class BusFolder:
    """Where the files of one embedded bus are."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "server.conf"

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    def seed_file(self, domain: str, user: str) -> Path:
        return self.path / "users" / domain / f"{user}.nk"

    def settings(self, domain: str, user: str, url: str) -> BusSettings:
        """Settings for `broker`, `agent` or `node.<id>` of a domain."""
        return BusSettings(
            url, self.seed_file(domain, user), self.ca_file, f"{domain}/{user}", f"_INBOX.{user}"
        )

    def server(self, *, port: int | None = None) -> EmbeddedServer:
        """The server of this folder; not started."""
        seed = self.path / "users" / "system.nk"
        probe = BusSettings("", seed, self.ca_file, "comity/probe", "_INBOX.system")
        return EmbeddedServer(self.config, state=self.path, probe=probe, port=port)


def found_bus(
    path: Path,
    domains: Mapping[str, Sequence[str]],
    now: datetime,
    *,
    port: int = -1,
    valid_days: int = VALID_DAYS,
    response_threshold_s: float = RESPONSE_THRESHOLD_S,
) -> tuple[BusFolder, BusPlan]:
    """Make logins for each domain and its node ids, and write every file. Raises `ConfigurationError`.

    valid_days: of the server's certificate, which nobody can renew.
    """
    folder = BusFolder(path)
    try:
        path.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError("bus.folder", f"{path}: {error.strerror}") from None
    certificate = make_certificate(now, valid_days)
    (path / "ca.pem").write_bytes(certificate.authority)
    (path / "server.pem").write_bytes(certificate.certificate)
    write_secret(path / "server.key", certificate.key)
    server = ServerSettings(
        ports_dir=path,
        log_file=path / "server.log",
        certificate=path / "server.pem",
        key=path / "server.key",
        port=port,
        response_threshold_s=response_threshold_s,
    )
    plan = make_plan(domains, server)
    write_logins(folder, plan)
    write_config(folder, plan)
    return folder, plan


def write_logins(folder: BusFolder, plan: BusPlan) -> None:
    """One file per login, mode 0600. An existing file is never overwritten."""
    _write_seed(folder.path / "users" / "system.nk", plan.system)
    for domain in plan.domains:
        for user in domain.users:
            _write_seed(folder.seed_file(domain.name, user.name), user)


def write_config(folder: BusFolder, plan: BusPlan) -> None:
    """Replace the configuration in one step; a running server takes it over with `reload`."""
    fresh = folder.config.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    write_secret(fresh, render(plan).encode("utf-8"))
    os.replace(fresh, folder.config)


def _write_seed(path: Path, user: BusUser) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(path, user.seed)
